//! What a shard does with all of its streams: describes them, and ends those of sessions that were ended.

use std::time::Duration;

use shared::{auth::Revocations, ids::SessionId};

use super::{
    super::{
        super::{
            about::{About, Connection},
            control::Reason,
        },
        stream::Stream,
    },
    Shard,
};

impl Shard {
    /// Looks at every stream: sessions are ended far too seldom to keep streams by session.
    pub(super) fn end_sessions(&mut self, revocations: &Revocations) {
        let Revocations { rewound, ended } = revocations;
        if let Some(rewound) = rewound {
            let mut unknown = Vec::new();
            for (key, stream) in &mut self.streams {
                match rewound.let_in_at(stream.about.let_in_at) {
                    Some(position) => stream.about.let_in_at = position,
                    None => unknown.push(key),
                }
            }
            // Their clients come back and are looked at anew.
            for key in unknown {
                self.end(key, Reason::MaxAge);
            }
        }
        let is_over = |about: &About| {
            ended.iter().any(|ended| ended.covers(&about.user, &about.session, about.let_in_at))
        };
        let streams = self.streams.iter();
        let over = streams.filter(|(_, stream)| is_over(&stream.about)).map(|(key, _)| key);
        for key in over.collect::<Vec<_>>() {
            self.end(key, Reason::Revoked);
        }
    }

    pub(super) fn connections(&self) -> Vec<(SessionId, Connection)> {
        let now = self.clock.now();
        let describe = |(_, stream): (usize, &Stream)| {
            let about = &stream.about;
            let quiet = Duration::from_millis(self.now.saturating_sub(stream.times.last_sent));
            let connection = Connection {
                id: about.connection,
                ip: about.address,
                user_agent: about.user_agent.clone(),
                created_at: about.opened_at.as_ms(),
                last_activity_at: Some(now.before(quiet).as_ms()),
                messages_sent: Some(stream.messages),
                duration_ms: self.now.saturating_sub(stream.times.opened),
                closed: stream.ending,
            };
            (about.session.clone(), connection)
        };
        self.streams.iter().map(describe).collect()
    }
}
