//! One connection, with the limits that the framework's server does not have. It bounds the size of a
//! head, and the time of the first one of a connection; here every head is bounded in time, as is a body
//! that nobody reads any more, the time between two requests, and how long a caller may take to take
//! its answer.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{http::StatusCode, rt::net::TcpStream, web::Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    refusal::{self, LINGER},
    slots::{Seat, Slot},
};
use crate::web::problem::Problem;

/// From the first byte of a head to the last, and from the connection to the first.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The longest head, in bytes: a token of 8 KiB and as much again. With it 2,000 connections that send nothing
/// but heads stay below 150 MB; the framework alone would take 128 KiB of each.
const HEAD_LIMIT: usize = 16 * 1024;
/// How much of a head is kept to tell which path a refusal is about, in bytes: a line with any path of this API. A
/// longer one is refused without its path.
const BEGUN_LIMIT: usize = 1024;
/// How long a caller may leave an answer in the network: the largest, the documentation page, at 50 kB/s.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Whether a request of this connection is under way, as the handlers' side tells it.
#[derive(Debug)]
pub(super) struct Phase {
    begun: Cell<u64>,
    /// The handler, and what is left of its answer where that is sent bit by bit.
    under_way: Cell<u32>,
    /// The caller sends nothing any more.
    ended: Cell<bool>,
    since: Cell<Instant>,
    seat: Arc<Seat>,
}

impl Phase {
    /// The request's head is read; what it may take now is the handlers' business.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        self.begun.set(self.begun.get() + 1);
        self.goes_on()
    }

    /// It is not over with the handler: its answer is sent bit by bit.
    pub(super) fn goes_on(self: &Rc<Self>) -> UnderWay {
        self.under_way.set(self.under_way.get() + 1);
        self.seat.busy();
        UnderWay(Rc::clone(self))
    }

    /// Whether the caller has closed its side. One that waits for an answer may do so; one that reads without an end
    /// has gone.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the connection is wanted for another caller.
    pub(super) fn must_end(&self) -> bool {
        self.seat.is_gone()
    }
}

#[derive(Debug)]
pub(super) struct UnderWay(Rc<Phase>);

impl UnderWay {
    pub(super) fn phase(&self) -> &Phase {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        if self.0.under_way.get() > 0 {
            return;
        }
        let now = Instant::now();
        self.0.since.set(now);
        self.0.seat.idle(now);
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    phase: Rc<Phase>,
    keep_alive: Duration,
    head: Head,
    /// An answer of this connection's own that is not written yet.
    refusal: Bytes,
    /// Refused: what arrives is thrown away until then.
    linger: Option<Instant>,
    /// Since when the caller does not take what is written.
    blocked: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    slot: Slot,
}

/// What has arrived since the last request began.
#[derive(Debug, Default)]
struct Head {
    /// Which request it follows.
    after: u64,
    /// None: nothing.
    since: Option<Instant>,
    bytes: usize,
    /// More than [`HEAD_LIMIT`] has arrived: what can be read of it as requests is.
    full: bool,
    /// The beginning of the line that arrives.
    line: Vec<u8>,
    /// The first bytes: what is asked for.
    begun: Vec<u8>,
}

impl Head {
    const TOKEN: &[u8] = b"authorization:";

    fn note(&mut self, arrived: &[u8]) {
        self.bytes += arrived.len();
        let kept = arrived.len().min(BEGUN_LIMIT - self.begun.len());
        self.begun.extend_from_slice(&arrived[..kept]);
        let begin = arrived.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| {
            self.line.clear();
            end + 1
        });
        let wanted = Self::TOKEN.len() - self.line.len();
        self.line.extend(arrived[begin..].iter().take(wanted));
    }

    /// What is wrong with one that is too long: a token of that length is none.
    fn problem(&self) -> Problem {
        if self.line.eq_ignore_ascii_case(Self::TOKEN) {
            Problem::unauthorized()
        } else {
            Problem::from_framework(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        }
    }
}

impl Connection {
    pub(super) fn new(stream: TcpStream, keep_alive: Duration, slot: Slot) -> Self {
        let now = Instant::now();
        let seat = slot.seat();
        let phase = Phase {
            begun: Cell::new(0),
            under_way: Cell::new(0),
            ended: Cell::new(false),
            since: Cell::new(now),
            seat,
        };
        Self {
            stream,
            phase: Rc::new(phase),
            keep_alive,
            head: Head::default(),
            refusal: Bytes::new(),
            linger: None,
            blocked: None,
            alarm: Box::pin(sleep_until(now + HEAD_WITHIN)),
            slot,
        }
    }

    pub(super) fn phase(&self) -> Rc<Phase> {
        Rc::clone(&self.phase)
    }

    /// What the head that cannot be read asks for. Of requests that were sent ahead it is not known where each begins.
    fn path(&self) -> String {
        if self.head.after == self.phase.begun.get() {
            refusal::path_of(&self.head.begun)
        } else {
            refusal::UNKNOWN.to_owned()
        }
    }

    /// When the next request has to have begun.
    fn deadline(&self) -> Instant {
        let idle = if self.phase.begun.get() == 0 { HEAD_WITHIN } else { self.slot.keep_alive(self.keep_alive) };
        self.head.since.map_or(self.phase.since.get() + idle, |since| since + HEAD_WITHIN)
    }

    /// Ends the reading side. Only the first head gets an answer: what arrives later may be the rest of
    /// a body whose request was answered long ago.
    fn refuse(&mut self, problem: &Problem, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.linger = Some(Instant::now() + LINGER);
        if self.phase.begun.get() == 0 && self.head.since.is_some() {
            self.refusal = refusal::answer(problem, &self.path());
        }
        self.discard(cx)
    }

    /// Ready at the end of the lingering: the reader takes it for the end of the connection.
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_refusal(cx)?.is_ready() && self.blocked.is_none() {
            // Nothing else will be written. Again at each poll, which changes nothing.
            drop(Pin::new(&mut self.stream).poll_shutdown(cx));
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) if self.linger.is_some_and(|until| until <= Instant::now()) => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(()) => {}
                Poll::Pending => break,
            }
        }
        let until = self.linger.unwrap_or_else(Instant::now);
        if self.rings(cx, until) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn write_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.refusal))?;
            drop(self.refusal.split_to(written));
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the deadline is past; if not, the task is woken then.
    fn rings(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        // An alarm that is set too early stays: to set it anew for each request costs more than one
        // that rings for nothing.
        if deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if deadline <= Instant::now() {
                return true;
            }
            self.alarm.as_mut().reset(deadline);
        }
        false
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_some() {
            return this.discard(cx);
        }
        if this.head.after != this.phase.begun.get() {
            this.head = Head { after: this.phase.begun.get(), ..Head::default() };
        }
        if this.phase.under_way.get() > 0 {
            let before = buffer.filled().len();
            let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
            if matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before {
                this.phase.ended.set(true);
            }
            return read;
        }
        this.slot.wakes(cx.waker());
        if this.phase.must_end() {
            // Nothing was filled in: the reader takes it for the end of the connection.
            return Poll::Ready(Ok(()));
        }
        if this.head.bytes >= HEAD_LIMIT {
            if this.head.full {
                return this.refuse(&this.head.problem(), cx);
            }
            // It may be a short head and a body. The reader looks at what it has, then comes back.
            this.head.full = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending if this.rings(cx, this.deadline()) => {
                this.refuse(&Problem::from_framework(StatusCode::REQUEST_TIMEOUT), cx)
            }
            Poll::Ready(Ok(())) => {
                this.head.since.get_or_insert_with(Instant::now);
                this.head.note(&buffer.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, written: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let own = match refusal::bare(written) {
            Some((0, status)) => {
                if this.linger.is_none() {
                    this.linger = Some(Instant::now() + LINGER);
                    this.refusal = refusal::answer(&Problem::from_framework(status), &this.path());
                }
                // The framework drops the connection as soon as it believes this written.
                return this.discard(cx).map_ok(|()| written.len());
            }
            Some((before, _)) => &written[..before],
            None => written,
        };
        match Pin::new(&mut this.stream).poll_write(cx, own) {
            Poll::Pending => {
                this.slot.wakes(cx.waker());
                let since = *this.blocked.get_or_insert_with(Instant::now);
                // Whoever reads no answer holds no place that others need.
                if this.phase.must_end() || this.rings(cx, since + ANSWER_WITHIN) {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                } else {
                    Poll::Pending
                }
            }
            ready @ Poll::Ready(_) => ready,
        }
    }

    /// Asked for when everything has been written: the caller has taken its answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.blocked = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
