//! Hears of the log of wishes, which all procs follow.

use shared::{
    ids::ProjectId,
    journal::{Position, Topic},
    store,
};

use super::{Fault, Feed, Place, Sources, entries};
use crate::search::wish;

impl Feed {
    /// Hears which projects are to be built anew.
    pub(super) fn hear_wishes(&mut self, sources: &Sources) -> Result<(), Fault> {
        let Some(at) = self.wishes else { return self.begin_wishes(sources) };
        let heard = sources.read(&self.store, move |reader| {
            let head = reader.head(&Topic::search())?.filter(|head| head.epoch == at.epoch);
            let entries = |_| reader.entries(&Topic::search(), at.seq, entries::PAGE);
            head.map(entries).transpose()
        })?;
        // Another log has this name: the store was replaced.
        let Some(entries) = heard else { return self.begin_wishes(sources) };
        for entry in &entries {
            if let Some(project) = wish::project(entry) {
                self.building.remove(&project);
                let place = self.places.get(&project).copied().unwrap_or_default();
                let wish = entry.position.seq;
                self.put(project, Place { position: None, wish, ..place })?;
            }
        }
        entries.last().map_or(Ok(()), |last| self.put_wishes(last.position))
    }

    /// Begins to hear wishes from now on. Whatever is built later fulfils those that there were.
    fn begin_wishes(&mut self, sources: &Sources) -> Result<(), Fault> {
        let head = sources.wait(self.store.write(|tx| {
            tx.ensure(&Topic::search())?;
            tx.head(&Topic::search())?.ok_or(store::Error::Gone)
        }))?;
        let known: Vec<(ProjectId, Place)> = self.places.clone().into_iter().collect();
        for (project, place) in known {
            self.put(project, Place { position: None, wish: head.seq, ..place })?;
        }
        self.put_wishes(head)
    }

    fn put_wishes(&mut self, position: Position) -> Result<(), Fault> {
        let place = Place { position: Some(position), ..Place::default() };
        self.index.put(Topic::search().as_str(), place)?;
        self.wishes = Some(position);
        Ok(())
    }
}
