//! Reader of event streams by the HTML standard (9.2.6), independent of the services' encoder.

/// An event as a browser hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The type, `message` where the stream names none.
    pub name: String,
    pub data: String,
    /// The last id that the stream has set.
    pub id: String,
}

/// Returns the events of a stream. What the end cuts off is no event.
#[must_use]
pub fn events(stream: &str) -> Vec<Event> {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let (mut events, mut last_id) = (Vec::new(), String::new());
    let (mut name, mut data, mut id) = (String::new(), String::new(), None);
    let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
    let Some((lines, _cut_off)) = lines.rsplit_once('\n') else { return events };
    for line in lines.split('\n') {
        if line.is_empty() {
            if let Some(id) = id.take() {
                last_id = id;
            }
            let (of, mut data) = (std::mem::take(&mut name), std::mem::take(&mut data));
            if data.pop().is_some() {
                let name = if of.is_empty() { "message".into() } else { of };
                events.push(Event { name, data, id: last_id.clone() });
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => id = Some(value.to_owned()),
            _ => {}
        }
    }
    events
}
