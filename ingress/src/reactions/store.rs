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
    for (message, kinds) in &mut found {
        merge_same(reader, viewer, *message, kinds)?;
    }
    Ok(found)
}

/// Merges kinds that look the same, as earlier versions stored them apart: in the earliest spelling, each user once.
fn merge_same(
    reader: &Reader<'_>,
    viewer: &UserId,
    message: MessageId,
    kinds: &mut Vec<Reaction>,
) -> Result<(), Error> {
    let mut merged: Vec<(String, Vec<Reaction>)> = Vec::new();
    for kind in kinds.drain(..) {
        let key = kind.emoji.key();
        match merged.iter_mut().find(|(known, _)| *known == key) {
            Some((_, same)) => same.push(kind),
            None => merged.push((key, vec![kind])),
        }
    }
    for (_, mut same) in merged {
        let mut first = same.remove(0);
        if !same.is_empty() {
            let spellings =
                std::iter::once(&first.emoji).chain(same.iter().map(|kind| &kind.emoji));
            let mut params: Vec<Value<'_>> = vec![message.into(), viewer.into()];
            params.extend(spellings.map(Value::from));
            let numbers: Vec<String> =
                (3..=params.len()).map(|number| format!("${number}")).collect();
            let numbers = numbers.join(", ");
            let sql = format!(
                "SELECT user_id FROM reactions WHERE message_id = $1 AND emoji IN ({numbers}) GROUP BY user_id \
                 ORDER BY CASE WHEN user_id = $2 THEN 0 ELSE 1 END, MIN(at), user_id"
            );
            let users = reader.query(&sql, &params, |row| row.parse::<UserId>(0))?;
            // The viewer is a parameter of both, so that both have the same list.
            let sql = format!(
                "SELECT more FROM reaction_counts WHERE message_id = $1 AND emoji IN ({numbers}) AND $2 <> ''"
            );
            let more =
                reader.query(&sql, &params, |row| row.get::<i64>(0))?.into_iter().sum::<i64>();
            first.count = (users.len() as u64).saturating_add(more.try_into().unwrap_or(0));
            first.users = users.into_iter().take(MAX_SHOWN_USERS).collect();
        }
        kinds.push(first);
    }
    Ok(())
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
    let mut places: HashMap<String, usize> = HashMap::new();
    let (mut seen, mut counted) = (HashSet::new(), HashSet::new());
    for (emoji, user, more) in rows {
        let place = match places.entry(emoji.key()) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(place) => {
                kinds.push(Reaction { emoji: emoji.clone(), users: vec![], count: 0 });
                *place.insert(kinds.len() - 1)
            }
        };
        if counted.insert(emoji) {
            kinds[place].count += u64::try_from(more).unwrap_or(0);
        }
        if seen.insert((place, user.clone())) {
            kinds[place].count += 1;
            kinds[place].users.push(user);
        }
    }
    Ok(kinds)
}

/// A reaction that was asked for: the spelling of its kind at the message, and whether anything changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) emoji: Emoji,
    pub(super) is_changed: bool,
}

/// Adds a reaction, in the spelling that its kind has at the message; returns `None` if the message has too many kinds already.
pub(super) fn add(
    tx: &mut Tx<'_>,
    message: MessageId,
    emoji: &Emoji,
    user: &UserId,
    now: Timestamp,
) -> Result<Option<Changed>, Error> {
    let sql = "SELECT 1 FROM reactions WHERE message_id = $1 AND emoji = $2 LIMIT 1";
    let mut emoji = emoji.clone();
    if tx.find(sql, &[message.into(), (&emoji).into()], |_| Ok(()))?.is_none() {
        let sql = "SELECT emoji FROM reactions WHERE message_id = $1 GROUP BY emoji ORDER BY MIN(at), emoji";
        let kinds = tx.query(sql, &[message.into()], |row| row.parse::<Emoji>(0))?;
        let key = emoji.key();
        let keys: Vec<String> = kinds.iter().map(Emoji::key).collect();
        if let Some(place) = keys.iter().position(|known| *known == key) {
            emoji.clone_from(&kinds[place]);
        } else if keys.iter().collect::<HashSet<_>>().len() >= MAX_KINDS {
            return Ok(None);
        }
    }
    let sql = "INSERT INTO reactions (message_id, emoji, user_id, at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (message_id, emoji, user_id) DO NOTHING";
    let made = tx.execute(sql, &[message.into(), (&emoji).into(), user.into(), now.into()])?;
    Ok(Some(Changed { emoji, is_changed: made > 0 }))
}

/// Takes a reaction away, in whatever spellings the user has it.
pub(super) fn remove(
    tx: &mut Tx<'_>,
    message: MessageId,
    emoji: &Emoji,
    user: &UserId,
) -> Result<Changed, Error> {
    let sql =
        "SELECT emoji FROM reactions WHERE message_id = $1 AND user_id = $2 ORDER BY at, emoji";
    let mut same = tx.query(sql, &[message.into(), user.into()], |row| row.parse::<Emoji>(0))?;
    let key = emoji.key();
    same.retain(|other| other.key() == key);
    let sql = "DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3";
    for other in &same {
        tx.execute(sql, &[message.into(), other.into(), user.into()])?;
    }
    let is_changed = !same.is_empty();
    Ok(Changed { emoji: same.into_iter().next().unwrap_or_else(|| emoji.clone()), is_changed })
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
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut left_out = 0;
        for (emoji, users, count) in reactions {
            let key = emoji.key();
            let place = *places.entry(key.clone()).or_insert(merged.len());
            if place == merged.len() {
                if place == MAX_KINDS {
                    places.remove(&key);
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
        // Kinds that look the same are one, in the spelling that is there.
        let mut there: HashMap<String, (Emoji, HashSet<UserId>)> = HashMap::new();
        for (emoji, user) in pairs {
            let kind = there.entry(emoji.key()).or_insert_with(|| (emoji, HashSet::new()));
            kind.1.insert(user);
        }
        let mut is_changed = false;
        for (kind, at) in self.kinds.iter().zip(first_at.as_ms()..) {
            let key = kind.emoji.key();
            if !there.contains_key(&key) && there.len() >= MAX_KINDS {
                continue;
            }
            let (emoji, users) =
                there.entry(key).or_insert_with(|| (kind.emoji.clone(), HashSet::new()));
            let emoji = &*emoji;
            let room = MAX_IMPORTED_USERS.saturating_sub(users.len());
            let missing = kind.users.iter().filter(|user| !users.contains(*user));
            let missing: Vec<&UserId> = missing.take(room).collect();
            let at = Value::from(Timestamp::from_ms(at));
            let row = |user| [message.into(), emoji.into(), Value::from(user), at];
            let rows: Vec<Value<'_>> = missing.iter().copied().flat_map(row).collect();
            let sql = "INSERT INTO reactions (message_id, emoji, user_id, at)";
            tx.execute_rows(sql, "ON CONFLICT (message_id, emoji, user_id) DO NOTHING", 4, &rows)?;
            is_changed |= !rows.is_empty();
            if kind.more > 0 {
                let sql = "INSERT INTO reaction_counts (message_id, emoji, more) VALUES ($1, $2, $3) \
                           ON CONFLICT (message_id, emoji) DO UPDATE SET more = excluded.more \
                           WHERE reaction_counts.more < excluded.more";
                let params = [message.into(), emoji.into(), kind.more.into()];
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
    use std::path::Path;

    use cluster::{on_both_stores, scratch::Home};
    use shared::{bus::Bus, store::Store};

    use super::*;

    fn open(home: Home, folder: &Path) -> Store {
        let store = match home.url() {
            None => Store::open(folder, &Bus::default()),
            Some(url) => Store::connect(&url, &Bus::default(), None),
        };
        store.expect("the database opens")
    }

    on_both_stores!(reactions_are_added_shown_and_removed);

    async fn reactions_are_added_shown_and_removed(home: Home) {
        let folder = tempfile::tempdir().expect("a folder for data");
        let store = open(home, folder.path());
        let (one, other) = (MessageId::mint(), MessageId::mint());
        let shown = store.write(move |tx| {
            let now = Timestamp::now();
            for user in users(120) {
                assert!(is_new(add(tx, one, &emoji(0), &user, now)?), "a new reaction");
            }
            let last = users(120).remove(119);
            assert!(!is_new(add(tx, one, &emoji(0), &last, now)?), "the same reaction again");
            for kind in 1..MAX_KINDS {
                assert!(is_new(add(tx, one, &emoji(kind), &last, now)?), "kind {kind}");
            }
            assert_eq!(add(tx, one, &emoji(MAX_KINDS), &last, now)?, None, "a kind too many");
            assert!(remove(tx, one, &emoji(1), &last)?.is_changed, "a reaction that is there");
            assert!(!remove(tx, one, &emoji(1), &last)?.is_changed, "a reaction that is gone");
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

    fn is_new(changed: Option<Changed>) -> bool {
        changed.expect("the message has room for the kind").is_changed
    }

    on_both_stores!(kinds_that_look_the_same_are_one);

    async fn kinds_that_look_the_same_are_one(home: Home) {
        let folder = tempfile::tempdir().expect("a folder for data");
        let store = open(home, folder.path());
        let message = MessageId::mint();
        let done = store.write(move |tx| {
            let [ada, grace, bob]: [UserId; 3] =
                ["ada", "grace", "bob"].map(|user| user.parse().unwrap());
            // An earlier version kept spellings apart.
            let sql =
                "INSERT INTO reactions (message_id, emoji, user_id, at) VALUES ($1, $2, $3, $4)";
            for (at, (emoji, user)) in
                (1..).zip([("+1", &ada), ("👍", &ada), ("👍\u{fe0f}", &grace), ("🎉", &ada)])
            {
                let at = Timestamp::from_ms(at);
                tx.execute(sql, &[message.into(), emoji.into(), user.into(), at.into()])?;
            }
            let kind = |emoji: &str, users: &[&UserId]| Reaction {
                emoji: emoji.parse().unwrap(),
                users: users.iter().map(|user| (*user).clone()).collect(),
                count: users.len().try_into().unwrap(),
            };
            let tada = kind("🎉", &[&ada]);
            let expected = [kind("+1", &[&ada, &grace]), tada.clone()];
            assert_eq!(of_message(tx, &ada, message)?, expected, "two kinds");
            assert_eq!(whole(tx, message)?, expected, "two kinds in an export");

            let thumb: Emoji = "thumbsup".parse().unwrap();
            let added =
                add(tx, message, &thumb, &bob, Timestamp::from_ms(9))?.expect("there is room");
            assert_eq!(
                (added.emoji.as_str(), added.is_changed),
                ("+1", true),
                "in the spelling of the kind"
            );
            let removed = remove(tx, message, &"👍".parse().unwrap(), &ada)?;
            assert_eq!(
                (removed.emoji.as_str(), removed.is_changed),
                ("+1", true),
                "both spellings"
            );
            let left = of_message(tx, &bob, message)?;
            assert_eq!(left[0].users, [bob, grace], "the others keep theirs: {left:?}");
            assert_eq!(left[1], tada, "{left:?}");
            Ok::<_, Error>(())
        });
        done.await.expect("the database is there");
    }

    #[test]
    fn an_import_merges_kinds_that_look_the_same() {
        let kind = |text: &str, count| (text.parse().unwrap(), users(count), 0);
        let merged = Imported::new([kind("+1", 2), kind("👍", 3), kind("👍🏽", 1)]);
        let kinds: Vec<_> =
            merged.kinds.iter().map(|kind| (kind.emoji.as_str(), kind.users.len())).collect();
        assert_eq!(kinds, [("+1", 3), ("👍🏽", 1)], "each user once, skin tones apart");
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
