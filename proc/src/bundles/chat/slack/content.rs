//! Text of a message in all the places where Slack keeps it: beside `text` in blocks, attachments and the titles of files.

use serde_json::{Value, value::RawValue};

use super::{
    lenient,
    text::{Names, link, plain_text},
};

/// Longest text of a record in bytes; Slack's own limit is 40,000 characters.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Pieces of a message that are compared with the others; Slack allows 100 attachments and 50 blocks.
const MAX_COMPARED: usize = 100;
/// Text of Slack in place of an attachment that it cannot show.
const NO_PREVIEW: &str = "[no preview available]";

/// Why a text cannot be read.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct TooLong;

/// The fields of a record that have text.
pub(super) struct Content<'a> {
    pub(super) text: &'a str,
    pub(super) blocks: Option<&'a RawValue>,
    pub(super) attachments: Option<&'a RawValue>,
    pub(super) files: &'a Value,
    /// True if an app wrote the message. An app's `text` may differ from its blocks; a person's has all words of them.
    pub(super) is_bot: bool,
}

impl Content<'_> {
    /// Returns all of the text, each piece once.
    pub(super) fn plain(&self, names: &Names) -> Result<String, TooLong> {
        let renderer = Renderer { names };
        let mut own = renderer.markup(self.text)?;
        if let Some(blocks) = self.blocks.and_then(parsed)
            && (self.is_bot || own.trim().is_empty() || !is_rich_text_only(&blocks))
        {
            own = with_blocks(own, &renderer.blocks(&blocks)?)?;
        }
        let written = self.files.as_array().map(|_| tokens(&own));
        let mut pieces = Pieces::default();
        pieces.add(&own)?;
        let attachments = self.attachments.and_then(parsed);
        for attachment in attachments.iter().filter_map(Value::as_array).flatten() {
            pieces.add(&renderer.attachment(attachment)?)?;
        }
        for file in self.files.as_array().into_iter().flatten() {
            let title = title(file);
            // Other words than a file's name may mean something else in a sentence.
            let is_named = title.contains('.')
                && written.as_ref().is_some_and(|written| written.contains(&tokens(&title)));
            if !is_named {
                pieces.add(&title)?;
            }
        }
        Ok(pieces.text)
    }
}

fn parsed(json: &RawValue) -> Option<Value> {
    lenient::value(json.get().as_bytes())
}

fn is_rich_text_only(blocks: &Value) -> bool {
    let blocks = blocks.as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().all(|block| kind(block) == "rich_text")
}

fn title(file: &Value) -> String {
    let title = ["title", "name"].iter().find_map(|key| string(file, key));
    title.unwrap_or_default().replace('\0', "").trim().to_owned()
}

/// Joins a text with the blocks of the same author, of which one is often the short form of the other.
fn with_blocks(text: String, blocks: &str) -> Result<String, TooLong> {
    if blocks.trim().is_empty() {
        return Ok(text);
    }
    let [short, full] = [&*text, blocks].map(tokens);
    let text = if full.contains(&short) {
        blocks.to_owned()
    } else if short.contains(&full) {
        text
    } else {
        format!("{}\n{blocks}", text.trim_end())
    };
    fits(&text).map(|()| text)
}

/// Text that is joined from the pieces of several authors, of which no piece replaces another one.
#[derive(Default)]
struct Pieces {
    text: String,
    /// The tokens of each line, between line ends; a NUL stands between two pieces.
    lines: String,
    compared: usize,
}

impl Pieces {
    /// Adds a piece, unless an earlier piece has all lines of it.
    fn add(&mut self, piece: &str) -> Result<(), TooLong> {
        if piece.trim().is_empty() {
            return Ok(());
        }
        if self.compared < MAX_COMPARED {
            self.compared += 1;
            let mut lines = String::from("\n");
            for line in piece.lines().filter(|line| !line.trim().is_empty()) {
                lines.push_str(&tokens(line));
                lines.push('\n');
            }
            if self.lines.contains(&lines) {
                return Ok(());
            }
            self.lines.push('\0');
            self.lines.push_str(&lines);
        }
        if !self.text.is_empty() {
            self.text.truncate(self.text.trim_end().len());
            self.text.push('\n');
        }
        self.text.push_str(piece);
        fits(&self.text)
    }
}

/// Returns the tokens of a text, each between spaces: its words and symbols without space, case, and Slack's markup.
fn tokens(text: &str) -> String {
    let mut tokens = String::with_capacity(text.len() + 2);
    tokens.push(' ');
    for token in text.split_whitespace() {
        tokens.extend(bare(token).chars().flat_map(char::to_lowercase));
        tokens.push(' ');
    }
    tokens
}

/// Returns a token without the marks around it, unless it has nothing else.
fn bare(token: &str) -> &str {
    let mut bare = token;
    loop {
        let mut inner = bare.trim_matches(['*', '_', '~', '`']).trim_end_matches([',', ';', ':']);
        for (open, close) in [('<', '>'), ('(', ')'), ('"', '"')] {
            let within = inner.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
            inner = within.unwrap_or(inner);
        }
        if inner.is_empty() || inner.len() == bare.len() {
            return bare;
        }
        bare = inner;
    }
}

fn fits(text: &str) -> Result<(), TooLong> {
    if text.len() > MAX_TEXT_BYTES { Err(TooLong) } else { Ok(()) }
}

fn string<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str().filter(|text| !text.trim().is_empty())
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Joins what is not blank with line ends.
fn lines(lines: impl IntoIterator<Item = Result<String, TooLong>>) -> Result<String, TooLong> {
    let mut text = String::new();
    for line in lines {
        let line = line?;
        let line = line.trim_matches('\n');
        if line.trim().is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
        fits(&text)?;
    }
    Ok(text)
}

/// Turns Slack's blocks and attachments into plain text.
struct Renderer<'a> {
    names: &'a Names,
}

impl Renderer<'_> {
    fn markup(&self, markup: &str) -> Result<String, TooLong> {
        let text = plain_text(markup, self.names).replace('\0', "");
        fits(&text).map(|()| text)
    }

    fn blocks(&self, blocks: &Value) -> Result<String, TooLong> {
        lines(blocks.as_array().into_iter().flatten().map(|block| self.block(block)))
    }

    fn block(&self, block: &Value) -> Result<String, TooLong> {
        let object = |key: &str| block.get(key).map_or(Ok(String::new()), |text| self.object(text));
        match kind(block) {
            "rich_text" => lines(list(block, "elements").map(|part| self.rich(part))),
            "section" => {
                let fields = list(block, "fields").map(|field| self.object(field));
                lines([object("text")].into_iter().chain(fields))
            }
            "context" => lines(list(block, "elements").map(|element| self.object(element))),
            "actions" => {
                let label = |element: &Value| {
                    element.get("text").map_or(Ok(String::new()), |text| self.object(text))
                };
                lines(list(block, "elements").map(label))
            }
            "image" | "video" => {
                lines([object("title"), self.alternative(block), object("description")])
            }
            "table" => {
                let row = |row: &Value| {
                    let cells = row.as_array().into_iter().flatten();
                    let cells: Result<Vec<_>, _> = cells.map(|cell| self.block(cell)).collect();
                    Ok(cells?.join("\t"))
                };
                lines(list(block, "rows").map(row))
            }
            "input" => object("label"),
            // Text of a header, Markdown, a table's cell, and newer kinds.
            _ => object("text"),
        }
    }

    /// Returns what stands for a picture, unless its title says the same.
    fn alternative(&self, block: &Value) -> Result<String, TooLong> {
        let title = block.pointer("/title/text").and_then(Value::as_str);
        let text = string(block, "alt_text").filter(|text| title != Some(text));
        self.markup(text.unwrap_or_default())
    }

    /// Returns a text object's text, a plain string, or an image's alternative.
    fn object(&self, object: &Value) -> Result<String, TooLong> {
        match object {
            Value::String(text) => self.markup(text),
            _ => match (kind(object), string(object, "text")) {
                ("mrkdwn", Some(text)) => self.markup(text),
                (_, Some(text)) => {
                    Ok(text.replace('\0', "")).and_then(|text| fits(&text).map(|()| text))
                }
                _ => self.alternative(object),
            },
        }
    }

    /// Returns a part of a rich text: a paragraph, a list, a quote, or code.
    fn rich(&self, part: &Value) -> Result<String, TooLong> {
        match kind(part) {
            "rich_text_list" => {
                let indent = part.get("indent").and_then(Value::as_u64).unwrap_or(0).min(10);
                let indent = "    ".repeat(usize::try_from(indent).unwrap_or(0));
                let first =
                    part.get("offset").and_then(Value::as_u64).unwrap_or(0).saturating_add(1);
                let is_ordered = string(part, "style") == Some("ordered");
                let items = list(part, "elements").zip(first..).map(|(item, number)| {
                    let mark = if is_ordered { format!("{number}.") } else { "•".to_owned() };
                    Ok(format!("{indent}{mark} {}", self.inline(item)?))
                });
                lines(items)
            }
            "rich_text_quote" => {
                let text = self.inline(part)?;
                let lines: Vec<String> = text.lines().map(|line| format!("> {line}")).collect();
                Ok(lines.join("\n"))
            }
            "rich_text_preformatted" => {
                let text = self.inline(part)?;
                Ok(if text.is_empty() {
                    text
                } else {
                    format!("```\n{}\n```", text.trim_matches('\n'))
                })
            }
            _ => self.inline(part),
        }
    }

    fn inline(&self, part: &Value) -> Result<String, TooLong> {
        let mut text = String::new();
        for element in list(part, "elements") {
            let id = |key| string(element, key).unwrap_or_default();
            match kind(element) {
                "link" => {
                    let (url, label) = (id("url"), string(element, "text").map(str::to_owned));
                    let shown = link(url, label.clone()).or(label);
                    text.push_str(&shown.unwrap_or_else(|| url.to_owned()));
                }
                "user" => text.push_str(&self.names.user(id("user_id"), None)),
                "channel" => text.push_str(&self.names.channel(id("channel_id"), None)),
                "usergroup" => text.extend(["@", id("usergroup_id")]),
                "broadcast" => text.extend(["@", id("range")]),
                "emoji" => {
                    let tone = element.get("skin_tone").and_then(Value::as_u64);
                    let tone = tone.map(|tone| format!(":skin-tone-{tone}:")).unwrap_or_default();
                    text.extend([":", id("name"), ":", &tone]);
                }
                "date" => text.push_str(id("fallback")),
                "color" => text.push_str(id("value")),
                _ => text.push_str(element.get("text").and_then(Value::as_str).unwrap_or_default()),
            }
            fits(&text)?;
        }
        Ok(text.replace('\0', ""))
    }

    fn attachment(&self, attachment: &Value) -> Result<String, TooLong> {
        let markup = |key| self.markup(string(attachment, key).unwrap_or_default());
        let title = || {
            let title = markup("title")?;
            let url = string(attachment, "title_link").unwrap_or_default();
            Ok(if title.is_empty() {
                title
            } else {
                link(url, Some(title.clone())).unwrap_or(title)
            })
        };
        let field = |field: &Value| {
            let [name, value] =
                ["title", "value"].map(|key| self.markup(string(field, key).unwrap_or_default()));
            let (name, value) = (name?, value?);
            Ok(if name.is_empty() || value.is_empty() {
                name + &value
            } else {
                format!("{name}: {value}")
            })
        };
        let mut body = markup("text")?;
        // A forwarded message has its blocks here.
        for message in list(attachment, "message_blocks").filter_map(|block| block.get("message")) {
            let blocks = self.blocks(message.get("blocks").unwrap_or(&Value::Null))?;
            body = with_blocks(body, &blocks)?;
        }
        let blocks = self.blocks(attachment.get("blocks").unwrap_or(&Value::Null))?;
        body = with_blocks(body, &blocks)?;
        let head = [markup("pretext"), markup("author_name"), title(), Ok(body)];
        let fields = list(attachment, "fields").map(field);
        let files = list(attachment, "files").map(|file| Ok(self::title(file)));
        let text = lines(head.into_iter().chain(fields).chain(files).chain([markup("footer")]))?;
        let fallback = self.fallback(attachment, &text)?;
        lines([Ok(text), Ok(fallback)])
    }

    /// Returns an attachment's short form, unless its fields, whose text is given, say the same.
    fn fallback(&self, attachment: &Value, text: &str) -> Result<String, TooLong> {
        let fallback = self.markup(string(attachment, "fallback").unwrap_or_default())?;
        if fallback == NO_PREVIEW {
            return Ok(String::new());
        }
        // Slack makes it of these, which are not shown.
        let keys = ["author_subname", "service_name", "from_url", "original_url", "title_link"];
        let mut said = tokens(text);
        for key in keys.into_iter().chain(["title", "image_url", "thumb_url"]) {
            said.push('\0');
            said.push_str(&tokens(string(attachment, key).unwrap_or_default()));
        }
        // That of a forwarded message begins with its time.
        let time = fallback.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("] "));
        let words =
            time.filter(|_| attachment.get("ts").is_some()).map_or(&*fallback, |time| time.1);
        let ends = [": ", " - ", " | ", "\n"];
        let parts = ends.iter().fold(vec![words], |parts, end| {
            parts.into_iter().flat_map(|part| part.split(end)).collect()
        });
        let is_said = |part: &str| said.contains(&tokens(part));
        let is_said = is_said(words) || parts.into_iter().all(is_said);
        Ok(if is_said { String::new() } else { fallback })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn names() -> Names {
        Names {
            people: [("U1".to_owned(), "Anna".into())].into(),
            channels: [("C1".to_owned(), "general".to_owned())].into(),
        }
    }

    fn plain(record: &Value) -> String {
        let raw = |key: &str| {
            record.get(key).map(|value| serde_json::value::to_raw_value(value).unwrap())
        };
        let (blocks, attachments) = (raw("blocks"), raw("attachments"));
        let content = Content {
            text: record["text"].as_str().unwrap_or_default(),
            blocks: blocks.as_deref(),
            attachments: attachments.as_deref(),
            files: &record["files"],
            is_bot: record["bot_id"].is_string(),
        };
        content.plain(&names()).unwrap()
    }

    #[test]
    fn rich_text_is_read_with_its_lists_quotes_code_links_and_mentions() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let section = |elements: Value| json!({"type": "rich_text_section", "elements": elements});
        let blocks = json!([{"type": "rich_text", "elements": [
            section(json!([
                text("Hi "), {"type": "user", "user_id": "U1"}, text(", see "), {"type": "channel", "channel_id": "C1"},
                text(" "), {"type": "link", "url": "https://a.b/c", "text": "the page"}, text(" "), {"type": "link", "url": "https://a.b"},
                text(" "), {"type": "emoji", "name": "clap", "skin_tone": 3}, text(" "), {"type": "broadcast", "range": "here"},
                text(" "), {"type": "usergroup", "usergroup_id": "S1"}, text(" & <b>\n"),
            ])),
            {"type": "rich_text_list", "style": "ordered", "offset": 1, "elements": [section(json!([text("two")])), section(json!([text("three")]))]},
            {"type": "rich_text_list", "style": "bullet", "indent": 1, "elements": [section(json!([text("dot")]))]},
            {"type": "rich_text_quote", "elements": [text("said\nbefore")]},
            {"type": "rich_text_preformatted", "elements": [text("let x = 1;")]},
        ]}]);
        assert_eq!(
            plain(&json!({"text": "", "blocks": blocks})),
            "Hi @Anna, see #general the page (https://a.b/c) https://a.b :clap::skin-tone-3: @here @S1 & <b>\n\
             2. two\n3. three\n    • dot\n> said\n> before\n```\nlet x = 1;\n```"
        );
        // A person's words are in `text` too.
        assert_eq!(plain(&json!({"text": "<!subteam^S1|@team> hi", "blocks": blocks})), "@team hi");
    }

    #[test]
    fn blocks_of_apps_are_read_beside_their_text() {
        let blocks = json!([
            {"type": "header", "text": {"type": "plain_text", "text": "Deploy <1>"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": "*Deploy* of &lt;api&gt; by <@U1>"},
             "fields": [{"type": "mrkdwn", "text": "*State*\ndone"}]},
            {"type": "divider"},
            {"type": "context", "elements": [{"type": "image", "alt_text": "logo"}, {"type": "mrkdwn", "text": "5 s"}]},
            {"type": "image", "title": {"type": "plain_text", "text": "graph"}, "alt_text": "graph"},
        ]);
        let read = "Deploy <1>\n*Deploy* of <api> by @Anna\n*State*\ndone\nlogo\n5 s\ngraph";
        assert_eq!(plain(&json!({"bot_id": "B1", "text": "", "blocks": blocks})), read);
        assert_eq!(plain(&json!({"bot_id": "B1", "text": "deploy 1", "blocks": blocks})), read);
        let notice = json!({"bot_id": "B1", "text": "something new", "blocks": blocks});
        assert_eq!(plain(&notice), format!("something new\n{read}"));
        let whole = json!({"bot_id": "B1", "text": "A b, c", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "b *c*"}}]});
        assert_eq!(plain(&whole), "A b, c");
    }

    #[test]
    fn attachments_are_read_with_title_text_and_fields_or_their_fallback() {
        for (attachment, text) in [
            (
                json!({"fallback": "build 7 failed", "title": "build 7", "text": "failed at step lint"}),
                "build 7\nfailed at step lint",
            ),
            (json!({"fallback": "only this"}), "only this"),
            (json!({"fallback": "[no preview available]"}), ""),
            (json!({"title": "T", "title_link": "https://a.b"}), "T (https://a.b)"),
            (
                json!({"pretext": "P", "fields": [{"title": "A", "value": "1"}, {"value": "2"}], "footer": "F"}),
                "P\nA: 1\n2\nF",
            ),
            (
                json!({"is_share": true, "author_name": "Bob", "text": "forwarded", "from_url": "https://x"}),
                "Bob\nforwarded",
            ),
            (
                json!({"message_blocks": [{"message": {"blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": "in blocks"}}]}}]}),
                "in blocks",
            ),
            (json!({"text": "T", "files": [{"title": "a.pdf"}]}), "T\na.pdf"),
            (json!(7), ""),
        ] {
            assert_eq!(
                plain(&json!({"text": "", "attachments": [attachment]})),
                text,
                "{attachment}"
            );
        }
        let both = json!({"text": "see:", "attachments": [{"text": "the content"}, {"text": "the content"}]});
        assert_eq!(plain(&both), "see:\nthe content");
    }

    #[test]
    fn no_text_of_another_author_replaces_that_of_the_message() {
        let share = json!({"is_share": true, "author_name": "Bob R", "text": "Is this approved?"});
        for (text, attachments, wanted) in [
            ("approved", json!([share]), "approved\nBob R\nIs this approved?"),
            ("no", json!([{"text": "yes or no?"}]), "no\nyes or no?"),
            ("yes", json!([{"title": "Say yes to the dress"}]), "yes\nSay yes to the dress"),
            ("diff", json!([{"text": "a + b"}, {"text": "a - b"}]), "diff\na + b\na - b"),
            ("Balance 5", json!([{"text": "-5"}]), "Balance 5\n-5"),
            ("C++ is out", json!([{"text": "C#"}]), "C++ is out\nC#"),
            ("is C out", json!([{"text": "C"}]), "is C out\nC"),
            ("ok", json!([{"text": "ok"}, {"text": "*OK*"}]), "ok"),
            ("done?", json!([{"text": "done"}]), "done?\ndone"),
            ("a\nb", json!([{"text": "b\nc"}, {"text": "b"}]), "a\nb\nb\nc"),
            ("***", json!([{"text": "*****"}]), "***\n*****"),
        ] {
            for is_app in [false, true] {
                let bot = if is_app { json!("B1") } else { Value::Null };
                let record = json!({"text": text, "attachments": attachments, "bot_id": bot});
                assert_eq!(plain(&record), wanted, "{record}");
            }
        }
    }

    #[test]
    fn blocks_of_an_app_take_no_symbol_from_its_text() {
        for (text, block, wanted) in [
            ("Balance 5", "Balance -5", "Balance 5\nBalance -5"),
            ("C++ is out", "C# is out", "C++ is out\nC# is out"),
            ("deploy done", "*Deploy done*: see `log`", "*Deploy done*: see `log`"),
        ] {
            let blocks = json!([{"type": "section", "text": {"type": "mrkdwn", "text": block}}]);
            let record = json!({"bot_id": "B1", "text": text, "blocks": blocks});
            assert_eq!(plain(&record), wanted, "{record}");
        }
    }

    #[test]
    fn a_fallback_is_left_out_only_if_the_other_fields_say_it() {
        for (attachment, wanted) in [
            (
                json!({"fallback": "deploy of api failed with 3", "title": "deploy of api"}),
                "deploy of api\ndeploy of api failed with 3",
            ),
            (
                json!({"fallback": "Site: The title", "service_name": "Site", "title": "The title"}),
                "The title",
            ),
            (
                json!({"fallback": "[September 13th, 2020 10:20 AM] bob: hi there", "ts": "1.000001",
                    "author_subname": "bob", "author_name": "Bob R", "text": "hi there"}),
                "Bob R\nhi there",
            ),
            (json!({"fallback": "Balance -5", "text": "Balance 5"}), "Balance 5\nBalance -5"),
        ] {
            assert_eq!(
                plain(&json!({"text": "", "attachments": [attachment]})),
                wanted,
                "{attachment}"
            );
        }
    }

    #[test]
    fn an_attachment_with_half_a_character_or_a_huge_number_is_read() {
        let attachments = r#"[{"text":"kept","footer":"\ud83d","ts":1e999}]"#.to_owned();
        let attachments = RawValue::from_string(attachments).unwrap();
        let content = Content {
            text: "see:",
            blocks: None,
            attachments: Some(&attachments),
            files: &Value::Null,
            is_bot: false,
        };
        assert_eq!(content.plain(&names()).unwrap(), "see:\nkept\n\u{fffd}");
    }

    #[test]
    fn titles_of_files_are_text() {
        let files =
            json!([{"title": "report.pdf", "name": "r.pdf"}, {"name": "b.png"}, {"id": "F3"}]);
        assert_eq!(plain(&json!({"text": "", "files": files})), "report.pdf\nb.png");
        assert_eq!(
            plain(&json!({"text": "my report.pdf", "files": files})),
            "my report.pdf\nb.png"
        );
    }

    #[test]
    fn a_text_of_any_length_is_bounded() {
        let names = Names {
            people: [("U1".to_owned(), "n".repeat(200).into())].into(),
            ..Names::default()
        };
        let text = "<@U1>".repeat(10_000);
        let content = Content {
            text: &text,
            blocks: None,
            attachments: None,
            files: &Value::Null,
            is_bot: false,
        };
        assert_eq!(content.plain(&names), Err(TooLong));
    }
}
