//! Sessions and tickets over a real store.

use std::time::Duration;

use clap::Parser;
use cluster::{on_both_stores, scratch::Home};
use futures_util::future::join_all;
use http::Request;
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{ended::Ended, *};
use crate::{
    bus::Bus,
    http::{ClaimedSession, Limit},
    ids::ProjectId,
    journal::Position,
};

on_both_stores!(
    a_session_belongs_to_one_user_until_it_is_ended,
    all_other_sessions_end_at_once_and_with_them_their_tickets,
    another_process_refuses_what_was_ended_and_passes_it_on_without_a_bus,
    who_is_let_in_knows_which_endings_are_about_them,
    an_ending_with_a_reused_number_is_heard_and_covers_callers_from_before,
    a_use_is_written_once_in_a_while_and_keeps_the_session,
    the_least_recently_used_sessions_of_a_user_are_forgotten,
    of_many_who_show_one_ticket_one_is_let_in,
    a_ticket_opens_what_it_was_issued_for_and_nothing_else,
);

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const MINUTE: Duration = Duration::from_mins(1);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    auth: AuthConfig,
}

struct Fixture {
    store: Store,
    auth: Auth,
    endings: Endings,
    _folder: TempDir,
}

fn auth(store: &Store) -> Auth {
    let Args { auth } = Args::parse_from([""]);
    Auth::of(
        auth,
        Issuer::Simple(Directory::demo()),
        Origins::new(&[]),
        store.clone(),
        DemoAccess::default(),
    )
}

async fn fixture(home: Home) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::default();
    let store = match home.url() {
        None => Store::open(folder.path(), &bus).unwrap(),
        Some(url) => Store::connect(&url, &bus, None).unwrap(),
    };
    let auth = auth(&store);
    let endings = Endings::begin(auth.clone(), &bus).await.unwrap();
    Fixture { store, auth, endings, _folder: folder }
}

fn user(id: &str) -> UserId {
    id.parse().unwrap()
}

fn session(id: &str) -> SessionId {
    id.parse().unwrap()
}

fn caller(id: &str, in_session: &str) -> User {
    User {
        id: user(id),
        name: id.to_uppercase(),
        roles: Roles { admin: true },
        session: session(in_session),
        expires_at: None,
    }
}

async fn show(auth: &Auth, id: &str, by: &str, now: Timestamp) -> Result<SessionId, Refused> {
    auth.inner.sessions.bind(ClaimedSession::Shown(session(id)), &user(by), now, || true).await
}

async fn let_in(store: &Store, user: &User, now: Timestamp) -> Result<Position, Refused> {
    let user = user.clone();
    store.read(move |reader| user.require(reader, now)).await
}

async fn issue(store: &Store, user: &User, project: Option<ProjectId>) -> SecretString {
    let (ticket, user) = (Ticket::mint().unwrap(), user.clone());
    let secret = ticket.secret().to_owned();
    store.write(move |tx| ticket.issue(tx, &user, project, NOW)).await.unwrap();
    secret.into()
}

async fn ask(
    auth: &Auth,
    method: &str,
    query: &str,
    ticket: &SecretString,
    now: Timestamp,
) -> Option<User> {
    let request = Request::builder().method(method).uri(format!("/sse/stream?{query}"));
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let let_in = async {
        let caller = auth.ticket_user(&parts, ticket, now).await?;
        let user = caller.user.clone();
        if method == "GET" {
            let enter = move |tx: &mut crate::store::Tx<'_>| caller.enter(tx, now);
            auth.inner.sessions.store().write(enter).await?;
        }
        Ok(user)
    };
    match let_in.await {
        Ok(user) => Some(user),
        Err(Refused::Unauthenticated) => None,
        Err(other) => panic!("{other}"),
    }
}

async fn a_session_belongs_to_one_user_until_it_is_ended(home: Home) {
    let Fixture { auth, store, _folder, .. } = fixture(home).await;
    show(&auth, "one", "ada", NOW).await.unwrap();
    show(&auth, "one", "ada", NOW).await.unwrap();
    let foreign = show(&auth, "one", "grace", NOW).await;
    assert!(matches!(foreign, Err(Refused::ForeignSession)));
    let (ada, grace) = (caller("ada", "two"), caller("grace", "three"));
    assert!(!auth.end_session(&grace, session("one")).await.unwrap(), "it is not hers");
    assert!(!auth.end_session(&ada, session("none")).await.unwrap());
    show(&auth, "one", "ada", NOW).await.unwrap();
    assert!(auth.end_session(&ada, session("one")).await.unwrap());
    assert!(!auth.end_session(&ada, session("one")).await.unwrap(), "it is over");
    for auth in [auth, self::auth(&store)] {
        for _ in 0..2 {
            let over = show(&auth, "one", "ada", NOW).await;
            assert!(matches!(over, Err(Refused::SessionEnded)));
            let foreign = show(&auth, "one", "grace", NOW).await;
            assert!(matches!(foreign, Err(Refused::ForeignSession)));
        }
    }
}

async fn all_other_sessions_end_at_once_and_with_them_their_tickets(home: Home) {
    let Fixture { auth, store, _folder, .. } = fixture(home).await;
    for (id, by) in [("one", "ada"), ("two", "ada"), ("three", "ada"), ("four", "grace")] {
        show(&auth, id, by, NOW).await.unwrap();
    }
    let [kept, ended, of_none, of_grace] =
        [("ada", "two"), ("ada", "one"), ("ada", "minted"), ("grace", "four")]
            .map(|(id, session)| caller(id, session));
    let mut tickets = Vec::new();
    for user in [&kept, &ended, &of_none, &of_grace] {
        tickets.push(issue(&store, user, None).await);
    }
    auth.end_other_sessions(&kept).await.unwrap();
    let mut opens = Vec::new();
    for ticket in &tickets {
        opens.push(ask(&auth, "GET", "", ticket, NOW).await.is_some());
    }
    assert_eq!(opens, [true, false, false, true]);
    for (id, by, goes_on) in [
        ("one", "ada", false),
        ("two", "ada", true),
        ("three", "ada", false),
        ("four", "grace", true),
    ] {
        assert_eq!(show(&auth, id, by, NOW).await.is_ok(), goes_on, "{id}");
    }
    let of_ada = |reader: &crate::store::Reader<'_>| {
        sessions_of(reader, &user("ada"), None, Limit::default())
    };
    let listed = store.read(of_ada).await.unwrap();
    assert_eq!(listed, [Session { id: session("two"), created_at: NOW, seen_at: NOW }]);
}

async fn another_process_refuses_what_was_ended_and_passes_it_on_without_a_bus(home: Home) {
    let Fixture { auth, store, endings, _folder } = fixture(home).await;
    let other = self::auth(&store);
    // Nobody publishes on this bus, as while NATS is away.
    let elsewhere = Endings::begin(other.clone(), &Bus::default()).await.unwrap();
    show(&auth, "one", "ada", NOW).await.unwrap();
    show(&other, "one", "ada", NOW).await.unwrap();
    auth.end_session(&caller("ada", "two"), session("one")).await.unwrap();
    assert!(show(&other, "one", "ada", NOW).await.is_ok(), "it has not heard of it");
    let (tell, mut told) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    for (endings, patience) in [(endings, 500), (elsewhere, 4_000)] {
        let tell = tell.clone();
        let running = endings.run(move |ended| tell.send(ended).unwrap(), stop.child_token());
        let hearing = async {
            let patience = Duration::from_millis(patience);
            timeout(patience, told.recv()).await.expect("in time").expect("an ending")
        };
        let ended = tokio::select! {
            () = running => panic!("it goes on until the shutdown"),
            ended = hearing => ended,
        };
        assert!(matches!(&ended.ended[..], [one] if one.names(&user("ada"), &session("one"))));
    }
    let over = show(&other, "one", "ada", NOW).await;
    assert!(matches!(over, Err(Refused::SessionEnded)), "{over:?}");
}

async fn who_is_let_in_knows_which_endings_are_about_them(home: Home) {
    let Fixture { auth, store, endings, _folder } = fixture(home).await;
    let (ada, mut minted) = (caller("ada", "one"), caller("ada", "minted"));
    show(&auth, "one", "ada", NOW).await.unwrap();
    let before = let_in(&store, &minted, NOW).await.unwrap();
    auth.end_other_sessions(&ada).await.unwrap();
    let after = let_in(&store, &minted, NOW).await.unwrap();
    assert!(let_in(&store, &ada, NOW).await.is_ok());
    auth.end_session(&ada, session("one")).await.unwrap();
    assert!(matches!(let_in(&store, &ada, NOW).await, Err(Refused::Unauthenticated)));
    minted.expires_at = Some(NOW);
    assert!(matches!(let_in(&store, &minted, NOW).await, Err(Refused::Unauthenticated)));
    let (tell, mut told) = mpsc::unbounded_channel::<super::ended::Revocations>();
    let (stop, mut ended) = (CancellationToken::new(), Vec::<Ended>::new());
    let hearing = async {
        while ended.len() < 2 {
            ended.extend(told.recv().await.unwrap().ended);
        }
        stop.cancel();
    };
    let running = endings.run(move |ended| tell.send(ended).unwrap(), stop.clone());
    tokio::join!(running, hearing);
    let covers = |number: usize, by: &str, id: &str, since| {
        let ended: &Ended = &ended[number];
        ended.covers(&user(by), &session(id), since)
    };
    assert!(covers(0, "ada", "minted", before) && !covers(0, "ada", "minted", after));
    assert!(!covers(0, "ada", "one", before) && !covers(0, "grace", "minted", before));
    assert!(covers(1, "ada", "one", after) && !covers(1, "ada", "minted", after));
    assert!(!covers(1, "grace", "one", after));
}

async fn a_use_is_written_once_in_a_while_and_keeps_the_session(home: Home) {
    let Fixture { auth, store, _folder, .. } = fixture(home).await;
    let sessions = &auth.inner.sessions;
    show(&auth, "kept", "ada", NOW).await.unwrap();
    show(&auth, "left", "ada", NOW).await.unwrap();
    let seen = async || {
        let list = |reader: &crate::store::Reader<'_>| {
            sessions_of(reader, &user("ada"), None, Limit::default())
        };
        let list = store.read(list).await.unwrap();
        list.into_iter().map(|session| session.seen_at.since(NOW)).collect::<Vec<_>>()
    };
    for (minutes, written) in [(4, 0), (5, 5), (9, 5), (10, 10)] {
        let now = NOW.after(minutes * MINUTE);
        show(&auth, "kept", "ada", now).await.unwrap();
        sessions.write_uses(now).await.unwrap();
        assert_eq!(seen().await, [written * MINUTE, Duration::ZERO], "after {minutes} minutes");
    }
    let month = NOW.after(30 * 24 * 60 * MINUTE);
    assert_eq!(auth.trim_sessions(month.after(MINUTE)).await.unwrap(), 1);
    assert_eq!(seen().await, [10 * MINUTE]);
}

async fn the_least_recently_used_sessions_of_a_user_are_forgotten(home: Home) {
    let Fixture { store, auth, endings: _endings, _folder } = fixture(home).await;
    for (minutes, id) in ["oldest", "older", "newer", "newest"].into_iter().enumerate() {
        let now = NOW.after(MINUTE * u32::try_from(minutes).unwrap());
        show(&auth, id, "ada", now).await.unwrap();
    }
    show(&auth, "of-grace", "grace", NOW).await.unwrap();
    let forget = |most| store.write(move |tx| sessions::forget_beyond(tx, &user("ada"), most));
    assert_eq!(forget(4).await.unwrap(), 0);
    assert_eq!(forget(2).await.unwrap(), 2);
    let left = |by: &'static str| {
        store.read(move |reader| sessions_of(reader, &user(by), None, Limit::default()))
    };
    let ids = |left: Vec<Session>| left.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(left("ada").await.unwrap()), [session("newer"), session("newest")]);
    assert_eq!(ids(left("grace").await.unwrap()), [session("of-grace")]);
}

async fn of_many_who_show_one_ticket_one_is_let_in(home: Home) {
    let Fixture { auth, store, _folder, .. } = fixture(home).await;
    let ticket = issue(&store, &caller("ada", "one"), None).await;
    let racing = (0..50).map(|_| ask(&auth, "GET", "", &ticket, NOW));
    let let_in = join_all(racing).await;
    assert_eq!(let_in.into_iter().flatten().count(), 1);
}

async fn a_ticket_opens_what_it_was_issued_for_and_nothing_else(home: Home) {
    let Fixture { auth, store, _folder, .. } = fixture(home).await;
    let (project, other) = (ProjectId::mint(), ProjectId::mint());
    let late = NOW.after(Duration::from_secs(30));
    let mut ada = caller("ada", "one");
    let (of_project, of_none) = (format!("project_id={project}"), String::new());
    let elsewhere = format!("project_id={other}");
    for (bound, right, wrong) in [
        (Some(project), &of_project, [&of_none, &elsewhere, &"project_id=junk".into()]),
        // An empty parameter is as good as none.
        (None, &of_none, [&of_project, &elsewhere, &"project_id=junk".into()]),
    ] {
        let ticket = issue(&store, &ada, bound).await;
        for query in wrong {
            assert!(ask(&auth, "GET", query, &ticket, NOW).await.is_none(), "{query}");
        }
        assert!(ask(&auth, "GET", right, &ticket, late).await.is_none(), "too late");
        let changed = format!("{}0", ticket.expose_secret()).into();
        assert!(ask(&auth, "GET", right, &changed, NOW).await.is_none());
        for method in ["HEAD", "HEAD", "GET"] {
            let user = ask(&auth, method, right, &ticket, late.before(Duration::from_millis(1)));
            let user = user.await.expect("it is good");
            assert_eq!((user.id, user.name.as_str()), (self::user("ada"), "ADA"));
            assert_eq!((user.roles, user.session), (Roles { admin: true }, session("one")));
        }
        for method in ["HEAD", "GET"] {
            assert!(ask(&auth, method, right, &ticket, NOW).await.is_none(), "it is spent");
        }
    }
    // It is good for as long as the token that it was had for.
    ada.expires_at = Some(NOW.after(Duration::from_secs(10)));
    let ticket = issue(&store, &ada, None).await;
    assert!(ask(&auth, "HEAD", "", &ticket, NOW.after(Duration::from_secs(10))).await.is_none());
    let user = ask(&auth, "HEAD", "", &ticket, NOW.after(Duration::from_secs(9))).await;
    assert_eq!(user.expect("it is good").expires_at, ada.expires_at);
    assert_eq!(auth.trim_tickets(NOW.after(Duration::from_secs(29))).await.unwrap(), 0);
    assert_eq!(auth.trim_tickets(late).await.unwrap(), 1);
}

async fn an_ending_with_a_reused_number_is_heard_and_covers_callers_from_before(home: Home) {
    let Fixture { auth, store, mut endings, _folder } = fixture(home).await;
    for id in ["one", "two", "three"] {
        show(&auth, id, "ada", NOW).await.unwrap();
    }
    let ada = caller("ada", "three");
    auth.end_session(&ada, session("one")).await.unwrap();
    let (tell, mut told) = mpsc::unbounded_channel::<super::ended::Revocations>();
    let tell = |found| tell.send(found).unwrap();
    endings.look(&tell).await.unwrap();
    assert_eq!(told.recv().await.unwrap().ended.len(), 1);
    let before = let_in(&store, &ada, NOW).await.unwrap();
    // A restore loses the last ending; another one gets its number.
    let lose = store.write(|tx| {
        let topic = crate::journal::Topic::sessions();
        tx.execute("DELETE FROM entries WHERE topic = $1", &[topic.as_str().into()])?;
        tx.execute(
            "UPDATE topics SET head = 0, tag = 0 WHERE name = $1",
            &[topic.as_str().into()],
        )?;
        tx.execute("UPDATE sessions SET ended_at = NULL", &[])
    });
    lose.await.unwrap();
    let other = self::auth(&store);
    assert!(other.end_session(&caller("ada", "two"), session("three")).await.unwrap());
    endings.look(&tell).await.unwrap();
    let found = told.recv().await.expect("the ending is heard");
    let rewound = found.rewound.expect("a lost tail is told of");
    let let_in_at = rewound.let_in_at(before).expect("the beginning was not lost");
    let [ended] = &found.ended[..] else { panic!("one ending: {:?}", found.ended) };
    assert!(!ended.covers(&user("ada"), &session("three"), before), "by its number alone");
    assert!(ended.covers(&user("ada"), &session("three"), let_in_at), "it ends the older stream");
    let over = show(&auth, "three", "ada", NOW).await;
    assert!(matches!(over, Err(Refused::SessionEnded)), "what was known is forgotten: {over:?}");
    show(&auth, "one", "ada", NOW).await.expect("its ending was lost");
    // A caller who was let in after the restore is not covered by a revocation from before.
    let after = let_in(&store, &caller("ada", "two"), NOW).await.unwrap();
    assert_eq!(rewound.let_in_at(after), Some(after));
}
