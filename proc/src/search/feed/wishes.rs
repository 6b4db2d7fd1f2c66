//! Hears of the log of wishes, which all procs follow.

use shared::{
    ids::ProjectId,
    journal::{Topic, tail::Tail},
    store,
};

use super::{Fault, Feed, Place, Sources, entries};
use crate::search::wish;

impl Feed {
    /// Hears which projects are to be built anew. A log that lost its tail, or is another one, is heard anew.
    pub(super) fn hear_wishes(&mut self, sources: &Sources) -> Result<(), Fault> {
        let Some(mut heard) = self.wishes.clone() else { return self.begin_wishes(sources) };
        let last = heard.last();
        let entries = sources.read(&self.store, move |reader| {
            reader.follow(&Topic::search(), last, entries::PAGE)
        })?;
        let Ok(entries) = entries else { return self.begin_wishes(sources) };
        for entry in &entries {
            heard.push(entry.position);
            if let Some(project) = wish::project(entry) {
                self.building.remove(&project);
                let place = self.places.get(&project).copied().unwrap_or_default();
                let wish = entry.position.seq;
                self.put(project, Place { position: None, wish, ..place })?;
            }
        }
        if entries.is_empty() { Ok(()) } else { self.put_wishes(heard) }
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
        self.put_wishes(Tail::at(head))
    }

    fn put_wishes(&mut self, heard: Tail) -> Result<(), Fault> {
        let place = Place { position: Some(heard.last()), ..Place::default() };
        self.index.put(Topic::search().as_str(), place)?;
        self.wishes = Some(heard);
        Ok(())
    }
}
