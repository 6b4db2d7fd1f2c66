//! SQL of reactions: the kinds of reaction to a message, and the users of each kind.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use serde::Serialize;
use shared::{
    ids::{Emoji, MessageId, UserId},
    store::{Error, Reader, Row, Tx, Value},
    time::Timestamp,
};

/// Most kinds of reaction that a message has.
pub(crate) const MAX_KINDS: usize = 50;
/// Most users of a kind that an import stores; it counts the others.
pub(crate) const MAX_IMPORTED_USERS: usize = 1_000;
/// Most users that a kind of an import counts; a larger number is none that anybody reached.
const MAX_IMPORTED_COUNT: u64 = 1_000_000;
/// Most users of a kind that an answer names.
const MAX_SHOWN_USERS: usize = 100;
/// Most users of a kind that an event names.
const MAX_EVENT_USERS: usize = 10;
/// Most bytes of JSON that the reactions of an event have.
const MAX_EVENT_BYTES: usize = 2_000;
/// Messages whose reactions one query reads.
const MESSAGES_A_QUERY: usize = 16;
/// Rows that one statement of an import inserts.
const ROWS_A_STATEMENT: usize = 500;

/// One kind of reaction to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Reaction {
    pub(crate) emoji: Emoji,
    /// At most 100 users, the caller first, then by time; events name at most ten.
    pub(crate) users: Vec<UserId>,
    /// Number of users who reacted so.
    pub(crate) count: u64,
}

impl Reaction {
    /// Returns roughly how many bytes of JSON the reaction is.
    pub(crate) fn json_bytes(&self) -> usize {
        let users = self.users.iter().map(|user| user.as_str().len() + 3);
        self.emoji.as_str().len() + users.sum::<usize>() + 48
    }
}

/// Returns the reactions as an event has them: few users a kind, and none where even those are too long.
pub(crate) fn for_event(reactions: &[Reaction]) -> Vec<Reaction> {
    let with = |most_users: usize| -> Vec<Reaction> {
        let shorten = |reaction: &Reaction| Reaction {
            users: reaction.users.iter().take(most_users).cloned().collect(),
            ..reaction.clone()
        };
        reactions.iter().map(shorten).collect()
    };
    let fits = |kinds: &Vec<Reaction>| {
        kinds.iter().map(Reaction::json_bytes).sum::<usize>() <= MAX_EVENT_BYTES
    };
    [MAX_EVENT_USERS, 1].map(with).into_iter().find(fits).unwrap_or_else(|| {
        let mut bytes = 0;
        let mut kinds = with(0);
        kinds.retain(|kind| {
            bytes += kind.json_bytes();
            bytes <= MAX_EVENT_BYTES
        });
        kinds
    })
}

/// Returns the reactions to each of the messages, the earliest kind first, as `viewer` sees them.
pub(crate) fn of_messages(
    reader: &Reader<'_>,
    viewer: &UserId,
    messages: &[MessageId],
) -> Result<HashMap<MessageId, Vec<Reaction>>, Error> {
    let mut found: HashMap<MessageId, Vec<Reaction>> = HashMap::new();
    for ids in messages.chunks(MESSAGES_A_QUERY) {
        // Few lengths of the list, so that few statements are prepared: the last id fills it up.
        let length = ids.len().next_power_of_two();
        let filled = ids.iter().chain(ids.last().into_iter().cycle()).take(length);
        let mut params: Vec<Value<'_>> = vec![viewer.into()];
        params.extend(filled.map(|id| Value::from(*id)));
        let numbers: Vec<String> = (2..=params.len()).map(|number| format!("${number}")).collect();
        let sql = format!(
            "WITH ranked AS (SELECT message_id, emoji, user_id, \
             ROW_NUMBER() OVER (PARTITION BY message_id, emoji \
             ORDER BY CASE WHEN user_id = $1 THEN 0 ELSE 1 END, at, user_id) AS place, \
             COUNT(*) OVER (PARTITION BY message_id, emoji) AS total, \
             MIN(at) OVER (PARTITION BY message_id, emoji) AS first_at \
             FROM reactions WHERE message_id IN ({})), \
             kinds AS (SELECT message_id, emoji, user_id, place, total, \
             DENSE_RANK() OVER (PARTITION BY message_id ORDER BY first_at, emoji) AS kind \
             FROM ranked WHERE place <= {MAX_SHOWN_USERS}) \
             SELECT k.message_id, k.emoji, k.user_id, k.total + COALESCE(c.more, 0) FROM kinds k \
             LEFT JOIN reaction_counts c ON c.message_id = k.message_id AND c.emoji = k.emoji \
             WHERE k.kind <= {MAX_KINDS} ORDER BY k.message_id, k.kind, k.place",
            numbers.join(", ")
        );
        let read = |row: &Row<'_>| {
            let count = row.get::<i64>(3)?.try_into().unwrap_or(0);
            Ok((row.get::<MessageId>(0)?, row.parse(1)?, row.parse::<UserId>(2)?, count))
        };
        for (message, emoji, user, count) in reader.query(&sql, &params, read)? {
            let kinds = found.entry(message).or_default();
            match kinds.last_mut().filter(|kind| kind.emoji == emoji) {
                Some(kind) => kind.users.push(user),
                None => kinds.push(Reaction { emoji, users: vec![user], count }),
            }
        }
    }
    Ok(found)
}

/// Returns the reactions to a message as `viewer` sees them.
pub(crate) fn of_message(
    reader: &Reader<'_>,
    viewer: &UserId,
    message: MessageId,
) -> Result<Vec<Reaction>, Error> {
    Ok(of_messages(reader, viewer, &[message])?.remove(&message).unwrap_or_default())
}

/// Returns the reactions to a message with every user that is stored, for an export.
pub(crate) fn whole(reader: &Reader<'_>, message: MessageId) -> Result<Vec<Reaction>, Error> {
    let sql = "SELECT r.emoji, r.user_id, COALESCE(c.more, 0) FROM reactions r \
               LEFT JOIN reaction_counts c ON c.message_id = r.message_id AND c.emoji = r.emoji \
               WHERE r.message_id = $1 ORDER BY r.at, r.emoji, r.user_id";
    let rows = reader.query(sql, &[message.into()], |row| {
        Ok((row.parse::<Emoji>(0)?, row.parse::<UserId>(1)?, row.get::<i64>(2)?))
    })?;
    let mut kinds: Vec<Reaction> = Vec::new();
    let mut places: HashMap<Emoji, usize> = HashMap::new();
    for (emoji, user, more) in rows {
        let place = match places.entry(emoji) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                let emoji = place.key().clone();
                kinds.push(Reaction { emoji, users: vec![], count: more.try_into().unwrap_or(0) });
                *place.insert(kinds.len() - 1)
            }
        };
        kinds[place].count += 1;
        kinds[place].users.push(user);
    }
    Ok(kinds)
}

/// Adds a reaction; returns whether it is new, `None` if the message has too many kinds already.
pub(super) fn add(
    tx: &mut Tx<'_>,
    message: MessageId,
    emoji: &Emoji,
    user: &UserId,
    now: Timestamp,
) -> Result<Option<bool>, Error> {
    let sql = "SELECT 1 FROM reactions WHERE message_id = $1 AND emoji = $2 LIMIT 1";
    if tx.find(sql, &[message.into(), emoji.into()], |_| Ok(()))?.is_none() {
        let sql = format!(
            "SELECT COUNT(*) FROM (SELECT DISTINCT emoji FROM reactions WHERE message_id = $1 LIMIT {MAX_KINDS}) kinds"
        );
        let kinds = tx.find(&sql, &[message.into()], |row| row.get::<i64>(0))?;
        if kinds.is_some_and(|kinds| usize::try_from(kinds).is_ok_and(|kinds| kinds >= MAX_KINDS)) {
            return Ok(None);
        }
    }
    let sql = "INSERT INTO reactions (message_id, emoji, user_id, at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (message_id, emoji, user_id) DO NOTHING";
    let made = tx.execute(sql, &[message.into(), emoji.into(), user.into(), now.into()])?;
    Ok(Some(made > 0))
}

/// Takes a reaction away; returns whether there was one.
pub(super) fn remove(
    tx: &mut Tx<'_>,
    message: MessageId,
    emoji: &Emoji,
    user: &UserId,
) -> Result<bool, Error> {
    let sql = "DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3";
    Ok(tx.execute(sql, &[message.into(), emoji.into(), user.into()])? > 0)
}

/// Deletes every reaction to a message.
pub(crate) fn clear(tx: &mut Tx<'_>, message: MessageId) -> Result<(), Error> {
    tx.execute("DELETE FROM reactions WHERE message_id = $1", &[message.into()])?;
    tx.execute("DELETE FROM reaction_counts WHERE message_id = $1", &[message.into()])?;
    Ok(())
}

/// Reactions of another system to one message, cut to what a message may have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Imported {
    kinds: Vec<ImportedKind>,
    /// Kinds beyond those that a message may have.
    left_out: u64,
}

#[derive(Clone, Debug)]
struct ImportedKind {
    emoji: Emoji,
    users: Vec<UserId>,
    /// Users beyond those that are stored.
    more: i64,
}

impl Imported {
    /// Takes each kind with its users, once each, and the number of users that it had; kinds beyond [`MAX_KINDS`] are counted.
    pub(crate) fn new(reactions: impl IntoIterator<Item = (Emoji, Vec<UserId>, u64)>) -> Self {
        let mut merged: Vec<(Emoji, Vec<UserId>, u64)> = Vec::new();
        let mut places: HashMap<Emoji, usize> = HashMap::new();
        let mut left_out = 0;
        for (emoji, users, count) in reactions {
            let place = *places.entry(emoji.clone()).or_insert(merged.len());
            if place == merged.len() {
                if place == MAX_KINDS {
                    places.remove(&emoji);
                    left_out += 1;
                    continue;
                }
                merged.push((emoji, Vec::new(), 0));
            }
            merged[place].1.extend(users);
            merged[place].2 = merged[place].2.max(count.min(MAX_IMPORTED_COUNT));
        }
        let kinds = merged.into_iter().map(|(emoji, mut users, count)| {
            let mut seen = HashSet::new();
            users.retain(|user| seen.insert(user.clone()));
            let count = usize::try_from(count).unwrap_or(0).max(users.len());
            users.truncate(MAX_IMPORTED_USERS);
            let more = count.saturating_sub(users.len()).try_into().unwrap_or(0);
            ImportedKind { emoji, users, more }
        });
        Self { kinds: kinds.filter(|kind| !kind.users.is_empty()).collect(), left_out }
    }

    /// Returns how many kinds were left out because a message has no more.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds what is missing to a message that has reactions, and takes none away; returns whether there was something.
    pub(crate) fn add_missing(
        &self,
        tx: &mut Tx<'_>,
        message: MessageId,
        first_at: Timestamp,
    ) -> Result<bool, Error> {
        if self.kinds.is_empty() {
            return Ok(false);
        }
        let sql = "SELECT emoji, user_id FROM reactions WHERE message_id = $1";
        let pairs = tx.query(sql, &[message.into()], |row| {
            Ok((row.parse::<Emoji>(0)?, row.parse::<UserId>(1)?))
        })?;
        let mut there: HashMap<Emoji, HashSet<UserId>> = HashMap::new();
        for (emoji, user) in pairs {
            there.entry(emoji).or_default().insert(user);
        }
        let mut is_changed = false;
        for (kind, at) in self.kinds.iter().zip(first_at.as_ms()..) {
            if !there.contains_key(&kind.emoji) && there.len() >= MAX_KINDS {
                continue;
            }
            let users = there.entry(kind.emoji.clone()).or_default();
            let room = MAX_IMPORTED_USERS.saturating_sub(users.len());
            let missing = kind.users.iter().filter(|user| !users.contains(*user));
            let missing: Vec<&UserId> = missing.take(room).collect();
            let at = Value::from(Timestamp::from_ms(at));
            let row = |user| [message.into(), (&kind.emoji).into(), Value::from(user), at];
            let rows: Vec<Value<'_>> = missing.iter().copied().flat_map(row).collect();
            let sql = "INSERT INTO reactions (message_id, emoji, user_id, at)";
            tx.execute_rows(sql, "ON CONFLICT (message_id, emoji, user_id) DO NOTHING", 4, &rows)?;
            is_changed |= !rows.is_empty();
            if kind.more > 0 {
                let sql = "INSERT INTO reaction_counts (message_id, emoji, more) VALUES ($1, $2, $3) \
                           ON CONFLICT (message_id, emoji) DO UPDATE SET more = excluded.more \
                           WHERE reaction_counts.more < excluded.more";
                let params = [message.into(), (&kind.emoji).into(), kind.more.into()];
                is_changed |= tx.execute(sql, &params)? > 0;
            }
        }
        Ok(is_changed)
    }

    /// Writes the reactions to a message that has none; each gets a time of its own, from `first_at` on, as times order them.
    pub(crate) fn insert(
        &self,
        tx: &mut Tx<'_>,
        message: MessageId,
        first_at: Timestamp,
    ) -> Result<(), Error> {
        let pairs =
            self.kinds.iter().flat_map(|kind| kind.users.iter().map(move |user| (kind, user)));
        let mut values: Vec<Value<'_>> = Vec::new();
        for ((kind, user), at) in pairs.zip(first_at.as_ms()..) {
            let at = Value::from(Timestamp::from_ms(at));
            values.extend([message.into(), (&kind.emoji).into(), user.into(), at]);
        }
        let sql = "INSERT INTO reactions (message_id, emoji, user_id, at)";
        for rows in values.chunks(4 * ROWS_A_STATEMENT) {
            tx.execute_rows(sql, "", 4, rows)?;
        }
        for kind in self.kinds.iter().filter(|kind| kind.more > 0) {
            let sql = "INSERT INTO reaction_counts (message_id, emoji, more) VALUES ($1, $2, $3)";
            tx.execute(sql, &[message.into(), (&kind.emoji).into(), kind.more.into()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cluster::{on_both_stores, scratch::Home};
    use shared::{bus::Bus, store::Store};

    use super::*;

    on_both_stores!(reactions_are_added_shown_and_removed);

    async fn reactions_are_added_shown_and_removed(home: Home) {
        let folder = tempfile::tempdir().expect("a folder for data");
        let store = match home.url() {
            None => Store::open(folder.path(), &Bus::default()),
            Some(url) => Store::connect(&url, &Bus::default(), None),
        };
        let store = store.expect("the database opens");
        let (one, other) = (MessageId::mint(), MessageId::mint());
        let shown = store.write(move |tx| {
            let now = Timestamp::now();
            for user in users(120) {
                assert_eq!(add(tx, one, &emoji(0), &user, now)?, Some(true), "a new reaction");
            }
            let last = users(120).remove(119);
            assert_eq!(
                add(tx, one, &emoji(0), &last, now)?,
                Some(false),
                "the same reaction again"
            );
            for kind in 1..MAX_KINDS {
                assert_eq!(add(tx, one, &emoji(kind), &last, now)?, Some(true), "kind {kind}");
            }
            assert_eq!(add(tx, one, &emoji(MAX_KINDS), &last, now)?, None, "a kind too many");
            assert!(remove(tx, one, &emoji(1), &last)?, "a reaction that is there");
            assert!(!remove(tx, one, &emoji(1), &last)?, "a reaction that is gone");
            Imported::new([(emoji(7), users(1_200), 0)]).insert(tx, other, now)?;
            let shown = of_messages(tx, &last, &[one, other])?;
            let whole = whole(tx, other)?;
            clear(tx, other)?;
            assert_eq!(of_message(tx, &last, other)?, [], "every reaction is gone");
            Ok::<_, Error>((shown, whole))
        });
        let (shown, whole) = shown.await.expect("the database is there");
        let kinds = &shown[&one];
        assert_eq!(kinds.len(), MAX_KINDS - 1, "kinds of the first message");
        let first = kinds.iter().find(|kind| kind.emoji == emoji(0)).expect("the kind is shown");
        assert_eq!((first.count, first.users.len()), (120, MAX_SHOWN_USERS));
        assert_eq!(first.users[0].as_str(), "slack:U119", "the viewer comes first");
        assert_eq!(
            (shown[&other][0].count, shown[&other][0].users.len()),
            (1_200, MAX_SHOWN_USERS)
        );
        assert_eq!((whole[0].count, whole[0].users.len()), (1_200, MAX_IMPORTED_USERS));
    }

    fn users(count: usize) -> Vec<UserId> {
        (0..count).map(|number| format!("slack:U{number}").parse().unwrap()).collect()
    }

    fn emoji(number: usize) -> Emoji {
        format!("kind{number}").parse().unwrap()
    }

    #[test]
    fn an_import_is_cut_to_fifty_kinds_and_a_thousand_users_a_kind() {
        let kinds = Imported::new((0..60_000).map(|number| (emoji(number), users(1), 1)));
        assert_eq!(kinds.kinds.len(), MAX_KINDS, "kinds");
        assert_eq!(kinds.left_out(), 60_000 - 50, "kinds that are left out");
        let counted = Imported::new([(emoji(0), users(3), 40)]);
        assert_eq!(counted.kinds[0].more, 37, "users that nobody named");
        let many = Imported::new([(emoji(0), users(1_500), 0), (emoji(0), users(1_500), 9)]);
        assert_eq!(many.kinds[0].users.len(), MAX_IMPORTED_USERS, "users that are stored");
        assert_eq!(many.kinds[0].more, 500, "users that are counted, each once");
    }

    #[test]
    fn the_reactions_of_an_event_are_bounded_in_bytes() {
        let reaction = |kind, length: usize| {
            let long = |number: usize| format!("{number:0>length$}").parse().unwrap();
            Reaction { emoji: emoji(kind), users: (0..100).map(long).collect(), count: 100 }
        };
        let few = for_event(&[reaction(0, 8), reaction(1, 8)]);
        assert!(few.iter().all(|kind| kind.users.len() == MAX_EVENT_USERS), "{few:?}");
        let many: Vec<_> = (0..MAX_KINDS).map(|kind| reaction(kind, 128)).collect();
        let cut = for_event(&many);
        assert!(serde_json::to_string(&cut).unwrap().len() <= MAX_EVENT_BYTES, "{cut:?}");
        assert!(cut.iter().all(|kind| kind.count == 100), "each kind keeps its count");
    }
}
