//! Settings of limits that make no sense are told at the start.

use std::sync::Arc;

use crate::support::Parley;

#[tokio::test]
async fn a_limit_that_cannot_be_read_is_refused_with_what_it_should_be() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    for (flag, said) in [
        ("--rate-limit-reads=50", "<burst>/<per second>"),
        ("--rate-limit-sends=0/5", "burst"),
        ("--rate-limit-opens=15/0", "rate"),
        ("--rate-limit-submits=10/1,owner=5/1", "`owner` is no role; there is admin"),
        ("--proc-queue-limit=many", "invalid digit"),
        ("--max-in-flight=0", "zero"),
    ] {
        let refusal = Parley::refusal(&dir, &[flag]).await;
        let setting = flag.split_once('=').unwrap().0;
        assert!(refusal.contains(said) && refusal.contains(setting), "{flag}: {refusal}");
    }
}
