//! The thread that starts every child. A child asks the kernel to be ended with its parent, and by parent the kernel means
//! the thread that started it: a thread of some runtime may end long before the process does, this one does not.

use std::{
    io,
    process::{Child, Command},
    sync::{
        LazyLock,
        mpsc::{Sender, channel},
    },
    thread,
};

type Request = (Command, Sender<io::Result<Child>>);

static KEEPER: LazyLock<Sender<Request>> = LazyLock::new(|| {
    let (sender, requests) = channel::<Request>();
    thread::spawn(move || {
        for (mut command, reply) in requests {
            // Nobody waits for it any more only if the process is ending.
            let _ = reply.send(command.spawn());
        }
    });
    sender
});

/// Starts a child that may ask to be ended with this process.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts children is gone");
    let (reply, answer) = channel();
    KEEPER.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
