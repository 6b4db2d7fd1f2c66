//! One caller who does not stop, and what the others notice of it.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::support::{Answer, Client, Parley};

use super::read;

const REQUESTS: u32 = 6_000;
/// A hundred times what may go on.
const PER_SECOND: u32 = 1_000;
const AT_ONCE: usize = 16;

#[tokio::test]
async fn of_a_flood_exactly_the_budget_passes_and_another_user_hardly_notices() {
    let flags = ["--rate-limit-reads=50/10,admin=off"];
    let parley = Parley::start_with(&flags).await;
    // The same flood on another process is what the machine makes of it.
    let elsewhere = Parley::start_with(&flags).await;
    let other = parley.as_user("admin");
    let (_, calm) = flooded(elsewhere.as_user("ada"), &other).await;
    let ((answers, started), loud) = flooded(parley.as_user("ada"), &other).await;
    let count = |status| answers.iter().filter(|(found, ..)| *found == status).count();
    let (passed, refused) = (count(200), count(429));
    assert_eq!(passed + refused, REQUESTS as usize, "nothing else is answered");
    // The first was counted between its beginning and its answer, and so was the last.
    let first = answers.iter().map(|(.., ended)| *ended).min().expect("a first");
    let last = answers.iter().map(|(_, begun, _)| *begun).max().expect("a last");
    let budget = |time: Duration| 50 + time.as_millis() / 100;
    let (least, most) = (budget(last.duration_since(first)), budget(started.elapsed()));
    assert!((least..=most).contains(&(passed as u128)), "{passed} passed, of {least} to {most}");
    println!(
        "{passed} of {REQUESTS} passed, the budget was {least} to {most}; p99 of another user while the flood is elsewhere \
         {calm:?}, while it is here {loud:?}"
    );
    // Other tests run besides: the figure above says more than this.
    assert!(loud < calm * 5 + Duration::from_millis(100), "{calm:?} became {loud:?}");
}

/// Floods as one caller, and returns the 99th percentile of another's times meanwhile.
async fn flooded(caller: Client, other: &Client) -> (Answers, Duration) {
    // On a thread of its own, so that the other waits for the server and not for the flood's client.
    let flood = tokio::task::spawn_blocking(move || flood(&caller));
    let mut times = Vec::new();
    let watch = async {
        loop {
            let started = Instant::now();
            read(other).await.is(200);
            times.push(started.elapsed());
        }
    };
    let answers = tokio::select! {
        flood = flood => flood.expect("it has answers"),
        () = watch => unreachable!("it goes on for ever"),
    };
    times.sort();
    (answers, times[times.len() * 99 / 100])
}

/// What each request was answered, when it began and when it was answered; and when all began.
type Answers = (Vec<(u16, Instant, Instant)>, Instant);

fn flood(caller: &Client) -> Answers {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let started = Instant::now();
        let answers = stream::iter(0..REQUESTS).map(async |number| {
            let due = started + Duration::from_secs(1) * number / PER_SECOND;
            tokio::time::sleep_until(due.into()).await;
            let begun = Instant::now();
            (read(caller).await.status, begun, Instant::now())
        });
        (answers.buffer_unordered(AT_ONCE).collect().await, started)
    })
}

/// Ways to write an address that is not one's own.
fn forged(number: u32) -> String {
    let [_, b, c, d] = number.wrapping_mul(2_654_435_761).to_be_bytes();
    match number % 10 {
        0 => format!("203.{b}.{c}.{d}"),
        1 => format!("203.{b}.{c}.{d}, 127.0.0.1"),
        2 => format!("127.0.0.1, 203.{b}.{c}.{d}"),
        3 => format!("203.{b}.{c}.{d}:{number}"),
        4 => format!("2001:db8:{b:x}:{c:x}::{d:x}"),
        5 => format!("[2001:db8:{b:x}:{c:x}::{d:x}]:{number}"),
        6 => format!("::ffff:203.{b}.{c}.{d}"),
        7 => format!("unknown, {number}"),
        8 => format!("\"203.{b}.{c}.{d}\",,, "),
        _ => ["203.0.113.1"; 60].join(",") + &format!(", 203.{b}.{c}.{d}"),
    }
}

#[tokio::test]
async fn who_forges_addresses_has_one_budget_and_takes_no_memory() {
    for (proxies, suffix) in [(&[][..], ""), (&["--trusted-proxies=127.0.0.1"], ", 198.51.100.7")] {
        let flags = [&["--rate-limit-reads=50/0.001"], proxies].concat();
        let parley = Parley::start_with(&flags).await;
        let client = parley.client();
        let ask = async |number: u32| {
            let from = forged(number) + suffix;
            let request = client.request("GET", "/api/auth/me").header("x-forwarded-for", &from);
            let request = request.header("x-real-ip", &from).header("forwarded", &from);
            Answer::to(request).await.status
        };
        let round = async |from: u32| {
            let answers = stream::iter(from..from + 1_000).map(&ask).buffer_unordered(AT_ONCE);
            let answers: Vec<u16> = answers.collect().await;
            [401, 429].map(|status| answers.iter().filter(|found| **found == status).count())
        };
        assert_eq!(round(0).await, [50, 950], "{proxies:?}");
        let before = parley.memory_kib();
        for from in 1..5 {
            assert_eq!(round(from * 1_000).await, [0, 1_000], "{proxies:?}");
        }
        let grown = parley.memory_kib().saturating_sub(before);
        println!("4,000 forged addresses: {grown} KiB more");
        assert!(grown < 2_048, "{before} KiB grew by {grown} KiB");
    }
}
