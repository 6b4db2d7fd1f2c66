//! Turns Slack's message markup into the plain text a reader would have seen.

use std::{collections::HashMap, sync::Arc};

use super::content::MAX_TEXT_BYTES;

/// Holds the names by which ids are shown in texts.
#[derive(Default, Debug)]
pub(super) struct Names {
    /// Names of members by id.
    pub(super) people: HashMap<String, Arc<str>>,
    /// Names of channels by id.
    pub(super) channels: HashMap<String, String>,
}

impl Names {
    /// Returns how a text shows the user of this id; `label` is the name that the text has itself.
    pub(super) fn user(&self, id: &str, label: Option<&str>) -> String {
        let name = self.people.get(id).map(|name| &**name).or(label).unwrap_or(id);
        format!("@{}", name.strip_prefix('@').unwrap_or(name))
    }

    /// Returns how a text shows the channel of this id; `label` is the name that the text has itself.
    pub(super) fn channel(&self, id: &str, label: Option<&str>) -> String {
        let name = label.or_else(|| self.channels.get(id).map(String::as_str));
        format!("#{}", name.unwrap_or(id))
    }
}

/// Returns `markup` as plain text; what is not Slack's markup stays as it is.
pub(super) fn plain_text(markup: &str, names: &Names) -> String {
    let mut plain = String::with_capacity(markup.len());
    let mut rest = markup;
    while let Some((before, tail)) = rest.split_once('<') {
        if plain.len() > MAX_TEXT_BYTES {
            // Names are longer than ids: the text is too long already.
            return plain;
        }
        unescape(before, &mut plain);
        let tag = tail.find(['<', '>']).filter(|&at| tail[at..].starts_with('>'));
        if let Some((text, after)) =
            tag.and_then(|at| Some((shown(&tail[..at], names)?, &tail[at + 1..])))
        {
            plain.push_str(&text);
            rest = after;
        } else {
            plain.push('<');
            rest = tail;
        }
    }
    unescape(rest, &mut plain);
    plain
}

/// Returns what stands for `<tag>`, or `None` if Slack has no such tag.
fn shown(tag: &str, names: &Names) -> Option<String> {
    let (target, label) = tag.split_once('|').unwrap_or((tag, ""));
    let label = Some(unescaped(label)).filter(|label| !label.is_empty());
    if let Some(id) = target.strip_prefix('@').filter(|id| is_id(id)) {
        return Some(names.user(id, label.as_deref()));
    }
    if let Some(id) = target.strip_prefix('#').filter(|id| is_id(id)) {
        return Some(names.channel(id, label.as_deref()));
    }
    if let Some(command) = target.strip_prefix('!') {
        return match command {
            "here" | "channel" | "group" | "everyone" => Some(format!("@{command}")),
            _ => {
                let group = || command.strip_prefix("subteam^").filter(|id| is_id(id));
                label.or_else(|| group().map(|id| format!("@{id}")))
            }
        };
    }
    link(&unescaped(target), label)
}

/// Returns a link as a reader sees it and can follow it; `None` if it is none.
pub(super) fn link(url: &str, label: Option<String>) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    if !is_scheme || rest.is_empty() || url.contains(char::is_whitespace) {
        return None;
    }
    // Slack adds a scheme to what the author typed, so the label is what was seen. It says no less than the address.
    let is_whole = |label: &String| bare(label) == bare(url);
    let address = if matches!(scheme, "mailto" | "tel") { rest } else { url };
    Some(match label {
        Some(label) if is_whole(&label) => label,
        Some(label) => format!("{label} ({address})"),
        None => address.to_owned(),
    })
}

/// Returns an address without what is added to it when it is made a link of.
fn bare(address: &str) -> &str {
    let schemes = ["https://", "http://", "mailto:", "tel:", "ftp://"];
    let without = schemes.iter().find_map(|scheme| address.strip_prefix(scheme));
    let without = without.unwrap_or(address);
    without.strip_suffix('/').unwrap_or(without)
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    unescape(text, &mut plain);
    plain
}

/// Appends `text` with Slack's three escapes undone, each once.
fn unescape(text: &str, plain: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let escapes = [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&", '&')];
        for (escape, meant) in escapes {
            if let Some(after) = rest.strip_prefix(escape) {
                plain.push(meant);
                rest = after;
                break;
            }
        }
    }
    plain.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::{Names, plain_text};
    use proptest::prelude::*;

    #[test]
    fn converts_each_kind_of_markup() {
        let names = Names {
            people: [("U1".to_owned(), "Anna <3 &amp;".into())].into(),
            channels: [("C1".to_owned(), "general".to_owned())].into(),
        };
        for (markup, plain) in [
            ("hi <@U1>!", "hi @Anna <3 &amp;!"),
            ("<@U1|old>", "@Anna <3 &amp;"),
            ("<@U2|ben>", "@ben"),
            ("<@U2>", "@U2"),
            ("<#C1|renamed>", "#renamed"),
            ("<#C1>, <#C1|>, <#C2>", "#general, #general, #C2"),
            ("<!here> <!channel> <!everyone|@everyone>", "@here @channel @everyone"),
            ("<!subteam^S1|@team> <!subteam^S1>", "@team @S1"),
            ("<!date^1392734382^{date}|18 Feb &amp; on>", "18 Feb & on"),
            ("<!date^1> <!new>", "<!date^1> <!new>"),
            ("<http://a.b/?x=1&amp;y|site>", "site (http://a.b/?x=1&y)"),
            ("<http://a.b/?x&amp;y|http://a.b/?x&amp;y>", "http://a.b/?x&y"),
            ("<https://a.b>", "https://a.b"),
            ("<http://a.b|a.b> <https://a.b/|a.b>", "a.b a.b"),
            ("<https://a.b/c|a.b/c> <https://a.b/c|a.b>", "a.b/c a.b (https://a.b/c)"),
            ("<https://a.b|http://a.b> <https://evil.b|a.b>", "http://a.b a.b (https://evil.b)"),
            ("<tel:+491|+491> <!group>", "+491 @group"),
            ("<mailto:a@b|a@b> <mailto:a@b|Anna> <mailto:a@b>", "a@b Anna (a@b) a@b"),
            ("&lt;@U1&gt; &amp;lt; &amp;amp; & &quot;", "<@U1> &lt; &amp; & &quot;"),
            ("a < b > c <joe> <", "a < b > c <joe> <"),
            ("<<@U2>>", "<@U2>"),
            ("<> <|> <@> <@|x> <#> <!> <:>", "<> <|> <@> <@|x> <#> <!> <:>"),
        ] {
            assert_eq!(plain_text(markup, &names), plain, "{markup}");
        }
    }

    proptest! {
        #![proptest_config(super::super::tests::seeded())]

        #[test]
        fn undoes_escaping(plain in r"(\PC|[<>&;@|]|&amp;|&lt;|<@U1>){0,40}") {
            let escaped = plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            prop_assert_eq!(plain_text(&escaped, &Names::default()), plain);
        }

        #[test]
        fn never_panics(markup in r"(\PC|[<>&;@#!|:]|&amp|<@|<!){0,40}") {
            plain_text(&markup, &Names::default());
        }
    }
}
