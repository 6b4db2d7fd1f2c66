//! When a call is over, whatever has come of it by then: said in `grpc-timeout`, held on both sides.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::TIMEOUT;

/// Returns `grpc-timeout` for a call that has this long.
pub(super) fn header(left: Duration) -> HeaderValue {
    // At most eight digits, as the protocol has it: more than a day.
    let ms = left.as_millis().clamp(1, 99_999_999);
    HeaderValue::from_str(&format!("{ms}m")).unwrap_or(HeaderValue::from_static("1m"))
}

/// Reads `grpc-timeout`; what cannot be read is none.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits = Some(digits).filter(|digits| digits.len() <= 8)?;
    let count: u64 =
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Returns what a call is answered that takes too long.
pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("the call took too long")
}

/// A body that ends at the deadline, and says so to its reader.
pub(super) struct Until<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
    over: bool,
}

impl<B> Until<B> {
    pub(super) fn new(body: B, deadline: Instant) -> Self {
        Self { body, deadline: Box::pin(sleep_until(deadline)), over: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Until<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.deadline.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        let mut trailers = HeaderMap::new();
        let written = exceeded().add_header(&mut trailers);
        Poll::Ready(written.is_ok().then(|| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Duration> {
        of(&HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(text).unwrap())]))
    }

    proptest! {
        #[test]
        fn a_deadline_is_read_as_it_was_said(ms in 1..99_999_999_u64) {
            let left = Duration::from_millis(ms);
            prop_assert_eq!(read(header(left).to_str().unwrap()), Some(left));
        }

        #[test]
        fn junk_is_no_deadline(text in "[ -~]{0,20}") {
            let digits = text.trim_end_matches(['H', 'M', 'S', 'm', 'u', 'n']);
            let fits = text.len() == digits.len() + 1
                && (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(read(&text).is_some(), fits);
        }
    }

    #[test]
    fn every_unit_is_known() {
        let read = ["1H", "2M", "3S", "4m", "5u", "6n"].map(|text| read(text).unwrap().as_nanos());
        assert_eq!(read, [3_600_000_000_000, 120_000_000_000, 3_000_000_000, 4_000_000, 5_000, 6]);
        assert_eq!(header(Duration::MAX), "99999999m");
        assert_eq!(header(Duration::ZERO), "1m");
    }
}
