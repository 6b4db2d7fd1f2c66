//! Which events a webhook gets.

use serde::{Deserialize, Serialize};

/// Every type of event that a project's log has.
const TYPES: [&str; 12] = [
    "message.created",
    "message.updated",
    "message.deleted",
    "reaction.added",
    "reaction.removed",
    "channel.created",
    "channel.updated",
    "member.added",
    "member.removed",
    "read.updated",
    "project.updated",
    "history.imported",
];
const ALL: &str = "*";

/// Types of events, or `*` alone for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "Vec<String>")]
#[schema(value_type = Vec<String>)]
pub(crate) struct Events(Vec<String>);

impl Events {
    /// Says whether an event of this type is wanted.
    pub(super) fn have(&self, kind: &str) -> bool {
        self.0.iter().any(|wanted| wanted == ALL || wanted == kind)
    }
}

impl TryFrom<Vec<String>> for Events {
    type Error = String;

    fn try_from(mut types: Vec<String>) -> Result<Self, String> {
        types.sort_unstable();
        types.dedup();
        let is_all = types == [ALL];
        if types.is_empty() || !(is_all || types.iter().all(|kind| TYPES.contains(&&**kind))) {
            return Err(format!("it is [\"*\"], or some of {}", TYPES.join(", ")));
        }
        Ok(Self(types))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(types: &[&str]) -> Result<Events, String> {
        Events::try_from(types.iter().map(|&kind| kind.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn known_types_or_all_of_them_are_wanted_and_nothing_else() {
        let some = events(&["message.created", "channel.created", "message.created"]).unwrap();
        assert!(some.have("message.created") && !some.have("message.updated"));
        let all = events(&["*"]).unwrap();
        assert!(TYPES.iter().all(|kind| all.have(kind)));
        for refused in [&[][..], &["*", "message.created"], &["message.*"], &["user.typing"], &[""]]
        {
            assert!(events(refused).is_err(), "{refused:?}");
        }
    }
}
