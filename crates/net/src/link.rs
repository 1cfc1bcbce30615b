//! One link: reads, decodes and delivers; encodes and writes; pushes back.
//!
//! A link's task takes turns. In each it writes what is queued, reads and delivers a bounded number of messages and
//! writes again, so the answers to a whole batch leave in one system call. What the machine queues outside of the
//! turn only wakes the task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use dunlin_peer::{CloseReason, Codec, Direction, DisconnectCause, Input, LinkId, Machine, Now, SendBuf};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Clock;
use crate::buffers::{BUFFER, Buffers};
use crate::config::ReactorConfig;
use crate::driver::Driver;
use crate::registry::Counters;

/// The first read of a link that was idle.
const MIN_READ: usize = 4 << 10;
/// A busy link's buffer with less room than this is not read into any more.
const LEAST_READ: usize = 32 << 10;
/// A message that says how long it is gets room for at most this many times of what has come of it.
const TRUST: usize = 16;
/// Messages delivered in one turn; then other links have theirs.
const TURN_MESSAGES: usize = 128;
/// Bytes read, and bytes written, in one turn.
const TURN_BYTES: usize = 1 << 20;
/// Chunks in one vectored write.
const SLICES: usize = 64;
/// A send queue that held more than this gives its memory back once it is empty.
const KEEP_SEND: usize = 16 << 10;
/// A link above the read mark that has not moved for this long is read all the same: two peers that each wait for
/// the other to read would wait for ever. The send cap still bounds it.
const STALL: Duration = Duration::from_secs(2);
/// After our close the peer's last bytes are read and dropped for at most this long, and at most this many of them:
/// closing a socket with unread bytes would reset it and could destroy what we sent last.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 << 10;

/// What the machine and the main loop may do to a link between its turns.
pub(crate) struct Link<C> {
    pub(crate) id: LinkId,
    codec: RefCell<C>,
    send: RefCell<SendBuf>,
    /// The most that was queued since the queue was last made anew.
    peak: Cell<usize>,
    /// Bytes queued since the machine last got `Writable`. Beyond the send mark another one is owed, whether or not
    /// so much was ever in the queue at once: a machine that paces itself cannot see how fast the socket drains.
    since_writable: Cell<usize>,
    /// When the peer last took something, or the queue last began to fill.
    progress: Cell<Now>,
    paused: Cell<bool>,
    state: RefCell<State>,
    in_turn: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    counters: Arc<Counters>,
}

enum State {
    Open,
    Closing { reason: CloseReason, deadline: Now },
    Failed(DisconnectCause),
}

impl<C: Codec> Link<C> {
    pub(crate) fn new(id: LinkId, codec: C, counters: Arc<Counters>, now: Now) -> Self {
        Self {
            id,
            codec: RefCell::new(codec),
            send: RefCell::new(SendBuf::default()),
            peak: Cell::new(0),
            since_writable: Cell::new(0),
            progress: Cell::new(now),
            paused: Cell::new(false),
            state: RefCell::new(State::Open),
            in_turn: Cell::new(false),
            waker: RefCell::new(None),
            counters,
        }
    }

    /// Queues a message, unless the link is ending.
    pub(crate) fn send(&self, msg: &C::Msg, config: &ReactorConfig, clock: &Clock) {
        if !self.is_open() {
            return;
        }
        self.queue(config, clock, |codec, send| codec.encode(msg, send));
        self.wake();
    }

    /// Queues what `put` appends.
    fn queue(&self, config: &ReactorConfig, clock: &Clock, put: impl FnOnce(&mut C, &mut SendBuf)) {
        let mut send = self.send.borrow_mut();
        let (before, idle) = (send.len(), send.is_empty());
        put(&mut self.codec.borrow_mut(), &mut send);
        if send.len() == before {
            return;
        }
        if idle {
            self.progress.set(clock.now());
        }
        self.peak.set(self.peak.get().max(send.len()));
        let queued = send.len().saturating_sub(before);
        self.since_writable
            .set(self.since_writable.get().saturating_add(queued));
        if send.len() > config.send_cap {
            // Frees the memory at once: nothing of it will be sent.
            *send = SendBuf::default();
            self.fail(DisconnectCause::Transport("the peer does not read what we send".into()));
        }
    }

    /// Sends what is queued until `deadline`, then ends.
    pub(crate) fn close(&self, reason: CloseReason, deadline: Now) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Open) {
            *state = State::Closing { reason, deadline };
            drop(state);
            self.wake();
        }
    }

    pub(crate) fn pause(&self) {
        self.paused.set(true);
    }

    pub(crate) fn resume(&self) {
        if self.paused.replace(false) {
            self.wake();
        }
    }

    /// Called now and then for what no socket event announces.
    pub(crate) fn tick(&self, now: Now, config: &ReactorConfig) {
        let late = match &*self.state.borrow() {
            State::Open => None,
            State::Closing { deadline, .. } => Some(now >= *deadline),
            State::Failed(_) => Some(true),
        };
        if let Some(late) = late {
            if late {
                self.wake();
            }
            return;
        }
        let queued = self.send.borrow().len();
        let stalled = now.since(self.progress.get());
        if queued > 0 && stalled >= config.send_timeout {
            self.fail(DisconnectCause::Transport("the peer does not read what we send".into()));
            self.wake();
        } else if queued > config.read_mark && stalled >= STALL {
            self.wake();
        }
    }

    fn fail(&self, cause: DisconnectCause) {
        *self.state.borrow_mut() = State::Failed(cause);
    }

    fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), State::Open)
    }

    fn wake(&self) {
        if !self.in_turn.get()
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Whether messages may be delivered now.
    fn may_read(&self, config: &ReactorConfig, clock: &Clock) -> bool {
        self.is_open()
            && !self.paused.get()
            && (self.send.borrow().len() <= config.read_mark || clock.now().since(self.progress.get()) >= STALL)
    }

    /// Writes until nothing is left, the socket is full (`Pending`), or the turn's share is used up.
    fn flush(&self, cx: &mut Context<'_>, stream: &mut TcpStream, clock: &Clock) -> Poll<io::Result<()>> {
        let mut send = self.send.borrow_mut();
        let mut share = TURN_BYTES;
        while !send.is_empty() && share > 0 {
            let wrote = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = send.slices(&mut slices);
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..filled]))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            send.consume(wrote);
            self.counters.wrote(wrote);
            self.progress.set(clock.now());
            share = share.saturating_sub(wrote);
        }
        if send.is_empty() && self.peak.get() > KEEP_SEND {
            *send = SendBuf::default();
            self.peak.set(0);
        }
        Poll::Ready(Ok(()))
    }
}

/// A link's task, from its opening to its end.
pub(crate) async fn run<M, C>(driver: Rc<Driver<M, C>>, link: Rc<Link<C>>, mut stream: TcpStream, direction: Direction)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut reader = Reader::new();
    let cause = poll_fn(|cx| {
        remember(&link.waker, cx);
        link.in_turn.set(true);
        let end = turn(cx, &driver, &link, &mut stream, &mut reader);
        link.in_turn.set(false);
        driver.settle();
        end
    })
    .await;
    drop(reader);
    let ours = matches!(cause, DisconnectCause::Ours(_));
    driver.gone(link.id, direction, cause);
    drop(link);
    if ours {
        let _lingering = Rc::clone(&driver.lingering);
        linger(stream).await;
    }
}

fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

/// Says that nothing more comes and takes in what the peer still sends, for a while.
pub(crate) async fn linger(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        let mut scrap = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scrap).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // Whether it ended well or not, the link is over.
    let _ = tokio::time::timeout(LINGER, farewell).await;
}

/// The bytes that came in and are not yet a message.
struct Reader {
    input: BytesMut,
    /// How much the next read asks for: grows while reads come back full, falls when the link idles.
    size: usize,
    /// The memory behind `input` is one of the reactor's buffers.
    shared: bool,
}

fn turn<M, C>(
    cx: &mut Context<'_>,
    driver: &Rc<Driver<M, C>>,
    link: &Link<C>,
    stream: &mut TcpStream,
    reader: &mut Reader,
) -> Poll<DisconnectCause>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    if let Wait::Over(cause) = write(cx, driver, link, stream) {
        return Poll::Ready(cause);
    }
    let reading = read(cx, driver, link, stream, reader);
    let writing = write(cx, driver, link, stream);
    for wait in [&writing, &reading] {
        if let Wait::Over(cause) = wait {
            return Poll::Ready(cause.clone());
        }
    }
    if let State::Closing { reason, deadline } = &*link.state.borrow()
        && (link.send.borrow().is_empty() || driver.clock.now() >= *deadline)
    {
        return Poll::Ready(DisconnectCause::Ours(reason.clone()));
    }
    // Whoever has something to do and does not wait for the socket needs another turn: the share was used up, or
    // what held it back has gone since it looked.
    let to_write = matches!(writing, Wait::Idle) && !link.send.borrow().is_empty();
    let to_read = matches!(reading, Wait::Idle) && link.may_read(&driver.config, &driver.clock);
    if to_write || to_read {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

/// How one direction of a link stands after its part of the turn.
enum Wait {
    /// The socket will wake the task.
    Socket,
    /// Nobody will wake the task on account of this direction.
    Idle,
    /// The link is over.
    Over(DisconnectCause),
}

/// Writes what is queued and tells the machine when there is room again.
fn write<M, C>(cx: &mut Context<'_>, driver: &Rc<Driver<M, C>>, link: &Link<C>, stream: &mut TcpStream) -> Wait
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut wait = Wait::Idle;
    // The second round carries what the machine queued at `Writable`; more than that waits for the next turn.
    for _ in 0..2 {
        if let State::Failed(cause) = &*link.state.borrow() {
            return Wait::Over(cause.clone());
        }
        wait = match link.flush(cx, stream, &driver.clock) {
            Poll::Ready(Ok(())) => Wait::Idle,
            Poll::Ready(Err(error)) => return Wait::Over(transport(&error)),
            Poll::Pending => Wait::Socket,
        };
        let queued = link.send.borrow().len();
        let owed = link.since_writable.get() > driver.config.send_mark;
        if !(owed && link.is_open() && queued <= driver.config.send_mark / 4) {
            break;
        }
        link.since_writable.set(0);
        driver.input(Input::Writable { link: link.id });
    }
    wait
}

/// Delivers what came in, up to the turn's share.
fn read<M, C>(
    cx: &mut Context<'_>,
    driver: &Rc<Driver<M, C>>,
    link: &Link<C>,
    stream: &mut TcpStream,
    reader: &mut Reader,
) -> Wait
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut messages = TURN_MESSAGES;
    let mut bytes = TURN_BYTES;
    while messages > 0 && bytes > 0 && link.may_read(&driver.config, &driver.clock) {
        let decoded = link.codec.borrow_mut().decode(&mut reader.input);
        link.queue(&driver.config, &driver.clock, Codec::respond);
        match decoded {
            Ok(Some(msg)) => {
                messages -= 1;
                driver.input(Input::Received { link: link.id, msg });
            }
            Ok(None) => match reader.fill(cx, stream, link.codec.borrow().missing(&reader.input), &driver.buffers) {
                Poll::Ready(Ok(0)) => return Wait::Over(DisconnectCause::Remote),
                Poll::Ready(Ok(read)) => {
                    link.counters.read(read);
                    bytes = bytes.saturating_sub(read);
                }
                Poll::Ready(Err(error)) => return Wait::Over(transport(&error)),
                Poll::Pending => return Wait::Socket,
            },
            Err(error) => return Wait::Over(DisconnectCause::Codec(error.to_string())),
        }
    }
    Wait::Idle
}

impl Reader {
    fn new() -> Self {
        Self {
            input: BytesMut::new(),
            size: MIN_READ,
            shared: false,
        }
    }

    /// One read. An idle link holds no memory: the buffer is made when bytes are there.
    ///
    /// A message that still needs `missing` bytes (0 when that is not known) gets room for just these, because what is
    /// made of it may keep the whole buffer in memory; but never more than some times of what has come of it.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut TcpStream,
        missing: usize,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        if stream.poll_read_ready(cx)?.is_pending() {
            if self.input.is_empty() {
                self.replace(BytesMut::new(), false, buffers);
                self.size = MIN_READ;
            }
            return Poll::Pending;
        }
        let room = self.input.capacity() - self.input.len();
        if missing == 0 {
            self.make_room(room, buffers);
        } else if room < missing {
            let earned = self.input.len().saturating_mul(TRUST).max(self.size);
            let more = missing.clamp(MIN_READ, earned.max(MIN_READ));
            if self.shared {
                let mut fresh = BytesMut::with_capacity(self.input.len() + more);
                fresh.extend_from_slice(&self.input);
                self.replace(fresh, false, buffers);
            } else {
                self.input.reserve(more);
            }
        }
        let read = ready!(pin!(stream.read_buf(&mut self.input)).poll(cx))?;
        if read >= self.size {
            self.size = (self.size * 4).min(BUFFER);
        }
        Poll::Ready(Ok(read))
    }

    /// A busy link fills one buffer after another, so that what keeps a buffer in memory are mostly bytes of use.
    fn make_room(&mut self, room: usize, buffers: &Buffers) {
        if self.size < BUFFER || self.input.len() > BUFFER - LEAST_READ {
            self.input.reserve(self.size);
        } else if room < LEAST_READ {
            let mut fresh = buffers.take();
            fresh.extend_from_slice(&self.input);
            self.replace(fresh, true, buffers);
        }
    }

    fn replace(&mut self, input: BytesMut, shared: bool, buffers: &Buffers) {
        let spent = std::mem::replace(&mut self.input, input);
        if std::mem::replace(&mut self.shared, shared) {
            buffers.give(spent);
        }
    }
}

fn transport(error: &io::Error) -> DisconnectCause {
    DisconnectCause::Transport(match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset by the peer".into(),
        io::ErrorKind::BrokenPipe => "the peer closed while we were sending".into(),
        io::ErrorKind::TimedOut => "the peer's host stopped answering".into(),
        _ => error.to_string().into(),
    })
}
