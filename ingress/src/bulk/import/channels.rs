//! Channels of an import: which of them are here already, under which name, and the names of the others.

use std::collections::HashSet;

use proto::{Channel, ImportChannelsRequest, ImportResponse};
use shared::{
    ids::ChannelName,
    names::has_invisible,
    store::{Reader, Tx, Value},
    time::Timestamp,
};
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

use super::{count, message::LATEST_US};
use crate::{
    ChatConfig,
    access::{Granted, Owner},
    error::ApiError,
};

/// The longest name of a channel in characters.
const MAX_NAME_CHARS: usize = 80;
/// The longest id that another system has for a channel, in bytes.
const MAX_EXTERNAL_ID_BYTES: usize = 256;
/// The longest name of a source.
const MAX_SOURCE_BYTES: usize = 32;
/// Numbers that a name is tried with.
const MAX_CHOICES: u32 = 20_000;

/// Makes the channels that are not there, and returns the names that all of them have.
pub(crate) fn channels(
    tx: &mut Tx<'_>,
    caller: &Granted<'_, Owner>,
    import: Uuid,
    request: &ImportChannelsRequest,
    limits: ChatConfig,
) -> Result<ImportResponse, ApiError> {
    let mut response = ImportResponse::default();
    let has = crate::channels::count(tx, caller.project)?;
    let mut room = i64::from(limits.channels_per_project) - has;
    let claims = Claims { caller, source: &request.source };
    let mut names: Vec<Option<ChannelName>> = Vec::new();
    // Channels whose place is known come first, so that a new one cannot take it.
    for channel in &request.channels {
        names.push(claims.name_of(tx, channel)?);
    }
    for (channel, name) in request.channels.iter().zip(&mut names) {
        if name.is_none() && claims.is_sound(channel) {
            *name = claims.choose(tx, channel)?;
        }
        let Some(name) = name else {
            response.failed += 1;
            continue;
        };
        let topic = channel.topic.as_deref().map(crate::channels::clean_topic);
        let sql = "SELECT import_id FROM channels WHERE project_id = $1 AND name = $2";
        let key = [caller.project.into(), Value::from(&*name)];
        let made = if tx.find(sql, &key, |_| Ok(()))?.is_some() {
            // Every project begins with a channel, which is nobody's yet.
            if let Some(topic) = &topic {
                crate::channels::describe_untouched(tx, caller, name, topic)?;
            }
            0
        } else if room <= 0 {
            response.failed += 1;
            continue;
        } else {
            room -= 1;
            crate::channels::create(tx, caller, name.clone(), topic)?;
            let at = created_at(channel).unwrap_or_else(|| tx.now());
            tx.execute(
                "UPDATE channels SET import_id = $3, created_at = $4 WHERE project_id = $1 AND name = $2",
                &[key[0], key[1], Value::Uuid(import), at.into()],
            )?
        };
        count(tx, &mut response, made, import, sql, &key)?;
    }
    let names = names.iter().map(|name| name.as_ref().map(ToString::to_string).unwrap_or_default());
    response.channel_names = names.collect();
    for channel in &request.private_channels {
        let made_public = claims.made_public(tx, channel, import)?;
        response.made_public.extend(made_public.map(|name| name.to_string()));
    }
    Ok(response)
}

/// The channels of one source, each known by the id that it has there.
struct Claims<'a> {
    caller: &'a Granted<'a, Owner>,
    source: &'a str,
}

impl Claims<'_> {
    /// Returns whether the channel can be known by its id; one from before ids were kept has none.
    fn is_sound(&self, channel: &Channel) -> bool {
        let id = &channel.external_id;
        self.source.len() <= MAX_SOURCE_BYTES
            && id.len() <= MAX_EXTERNAL_ID_BYTES
            && !id.contains('\0')
    }

    /// Returns the name here of a channel that an import brought before.
    fn name_of(
        &self,
        reader: &Reader<'_>,
        channel: &Channel,
    ) -> Result<Option<ChannelName>, ApiError> {
        let sql = "SELECT name FROM imported_channels WHERE project_id = $1 AND source = $2 AND external_id = $3";
        let key = [
            self.caller.project.into(),
            self.source.into(),
            Value::from(channel.external_id.as_str()),
        ];
        Ok(reader.find(sql, &key, |row| row.parse(0))?)
    }

    /// Returns whether a channel here is another one of the source.
    fn is_taken(&self, reader: &Reader<'_>, name: &ChannelName) -> Result<bool, ApiError> {
        let sql =
            "SELECT 1 FROM imported_channels WHERE project_id = $1 AND source = $2 AND name = $3";
        let key = [self.caller.project.into(), self.source.into(), name.into()];
        Ok(reader.find(sql, &key, |_| Ok(()))?.is_some())
    }

    /// Returns whether a channel here is known by an id that it has in any source.
    fn is_of_any(&self, reader: &Reader<'_>, name: &ChannelName) -> Result<bool, ApiError> {
        let sql = "SELECT 1 FROM imported_channels WHERE project_id = $1 AND name = $2 LIMIT 1";
        let key = [self.caller.project.into(), name.into()];
        Ok(reader.find(sql, &key, |_| Ok(()))?.is_some())
    }

    /// Gives a channel its name here for good.
    fn choose(&self, tx: &mut Tx<'_>, channel: &Channel) -> Result<Option<ChannelName>, ApiError> {
        let Some(name) = self.free_name(tx, channel)? else { return Ok(None) };
        if !channel.external_id.is_empty() {
            let sql = "INSERT INTO imported_channels (project_id, source, external_id, name) VALUES ($1, $2, $3, $4)";
            let id = channel.external_id.as_str().into();
            tx.execute(sql, &[self.caller.project.into(), self.source.into(), id, (&name).into()])?;
        }
        Ok(Some(name))
    }

    fn free_name(
        &self,
        reader: &Reader<'_>,
        channel: &Channel,
    ) -> Result<Option<ChannelName>, ApiError> {
        if channel.external_id.is_empty() {
            return Ok(name(&channel.name, 1));
        }
        let composed: String = channel.name.nfc().collect();
        // An import of before may have made the channel under the name as it was spelled.
        if composed != channel.name
            && let Some(name) = name(&channel.name, 1)
            && crate::channels::exists(reader, self.caller, &name)?
            && !self.is_taken(reader, &name)?
        {
            return Ok(Some(name));
        }
        let first = name(&composed, 1);
        let is_here = match &first {
            Some(first) => crate::channels::exists(reader, self.caller, first)?,
            None => false,
        };
        if !is_here && let Some(name) = self.renamed(reader, channel)? {
            return Ok(Some(name));
        }
        for number in 1..MAX_CHOICES {
            let Some(name) = name(&composed, number) else { continue };
            if !self.is_taken(reader, &name)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Returns a channel that an import of before brought and that has another name there by now: no id was kept of it, but the
    /// time at which it was made.
    fn renamed(
        &self,
        reader: &Reader<'_>,
        channel: &Channel,
    ) -> Result<Option<ChannelName>, ApiError> {
        let Some(at) = created_at(channel) else { return Ok(None) };
        let sql = "SELECT name FROM channels c WHERE project_id = $1 AND created_at = $2 AND import_id IS NOT NULL \
                   AND NOT EXISTS (SELECT 1 FROM imported_channels i WHERE i.project_id = c.project_id AND i.name = c.name) LIMIT 2";
        let found = reader.query(sql, &[self.caller.project.into(), at.into()], |row| {
            row.parse::<ChannelName>(0)
        })?;
        Ok(if let [name] = &found[..] { Some(name.clone()) } else { None })
    }

    /// Returns the channel here that an earlier import made of a channel which is private where it comes from.
    fn made_public(
        &self,
        reader: &Reader<'_>,
        channel: &Channel,
        import: Uuid,
    ) -> Result<Option<ChannelName>, ApiError> {
        let known = self.name_of(reader, channel)?;
        let is_known = known.is_some();
        let composed: String = channel.name.nfc().collect();
        let named = [&channel.name, &composed].map(|spelled| name(spelled, 1));
        let mut seen = HashSet::new();
        for name in known.into_iter().chain(named.into_iter().flatten()) {
            if !seen.insert(name.clone()) {
                continue;
            }
            let sql = "SELECT 1 FROM channels WHERE project_id = $1 AND name = $2 AND import_id IS NOT NULL AND import_id <> $3";
            let key = [self.caller.project.into(), (&name).into(), Value::Uuid(import)];
            let is_imported = reader.find(sql, &key, |_| Ok(()))?.is_some();
            if is_imported && (is_known || !self.is_of_any(reader, &name)?) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

fn created_at(channel: &Channel) -> Option<Timestamp> {
    let shown = |ms: &i64| (0..LATEST_US / 1_000).contains(ms);
    channel.created_at_ms.filter(shown).map(Timestamp::from_ms)
}

/// Returns the `number`th choice for a name: the name itself if a channel here can have it, else one made from it.
fn name(name: &str, number: u32) -> Option<ChannelName> {
    if number == 1
        && let Ok(name) = name.parse::<ChannelName>()
        && !has_invisible(name.as_str())
    {
        return Some(name);
    }
    let allowed = |c: char| {
        let c = c.to_string();
        c.parse::<ChannelName>().is_ok() && !has_invisible(&c)
    };
    let lowered = name.to_lowercase();
    let valid = lowered.chars().map(|c| if allowed(c) { c } else { '-' });
    let suffix = if number == 1 { String::new() } else { format!("-{number}") };
    let stem: String = valid.take(MAX_NAME_CHARS - suffix.len()).collect();
    let stem = if stem.is_empty() { "channel".into() } else { stem };
    format!("{stem}{suffix}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_or_made_valid() {
        let long = "x".repeat(200);
        for (wish, number, made) in [
            ("general", 1, "general"),
            ("General", 1, "general"),
            ("General", 2, "general-2"),
            ("general-2", 2, "general-2-2"),
            ("A, B/c", 1, "a--b-c"),
            ("", 1, "channel"),
            (" ", 1, "-"),
            ("Über", 1, "über"),
            ("gen\u{202e}eral", 1, "gen-eral"),
            (&long, 1, &"x".repeat(80)),
        ] {
            assert_eq!(name(wish, number).unwrap().as_str(), made, "{wish}");
        }
    }
}
