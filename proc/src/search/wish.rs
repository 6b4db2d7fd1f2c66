//! What the log says that every proc follows: which projects are to be built anew.

use serde::{Deserialize, Serialize};
use shared::{ids::ProjectId, journal::Entry};

/// The type of the entries.
pub(super) const KIND: &str = "search.reindex";

#[derive(Serialize, Deserialize)]
struct Wish {
    project_id: ProjectId,
}

/// Returns what an entry says that wishes for a build of a project.
pub(super) fn data(project: ProjectId) -> String {
    serde_json::json!(Wish { project_id: project }).to_string()
}

/// Returns the project that an entry is about, `None` if this version knows no such entry.
pub(super) fn project(entry: &Entry) -> Option<ProjectId> {
    let wish: Wish = (&*entry.kind == KIND).then(|| serde_json::from_str(&entry.data).ok())??;
    Some(wish.project_id)
}
