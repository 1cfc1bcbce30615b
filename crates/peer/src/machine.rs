//! Protocol without I/O: what a machine takes in and what it puts out.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::{DialToken, Link, LinkId, NetAddr, Now};

/// How a machine names its peers: by socket addresses where the internet is all there is, by [`NetAddr`] where peers are
/// on other networks, too.
pub trait Address:
    Copy + Ord + fmt::Debug + fmt::Display + From<SocketAddr> + Into<NetAddr> + TryFrom<NetAddr> + 'static
{
}

impl Address for SocketAddr {}
impl Address for NetAddr {}

/// A protocol as a state machine.
///
/// A machine never opens a socket, reads a clock, draws from the operating system's randomness or touches a disk.
/// Time is an argument; slow work (disk, script checks, hashing) leaves as [`Output::Job`] and its answer comes back
/// as [`Input::Done`]. The same inputs in the same order from the same seed give the same outputs.
///
/// The driver's contract: after each `handle` or `handle_timeout` it calls [`Machine::poll`] until `None`, carrying
/// out what it gets in order; it calls `handle_timeout` no earlier than the instant of [`Machine::poll_timeout`].
/// Outputs that name a link which has gone are dropped without harm. For each `Connected` there is exactly one
/// `Disconnected`, also when the machine itself asked for the close.
pub trait Machine {
    /// What travels on a link, already decoded. Bulk payload in it is reference-counted, never copied.
    type Msg;
    /// How peers are named.
    type Addr: Address;
    /// What the program asks of the machine.
    type Command;
    /// What the machine tells the program.
    type Event;
    /// Slow work for someone else.
    type Job;
    /// The answer to a job.
    type Done;

    /// Takes one input.
    fn handle(&mut self, now: Now, input: Input<Self::Msg, Self::Command, Self::Done, Self::Addr>);
    /// Does what is due at `now`. Calling it early is harmless.
    fn handle_timeout(&mut self, now: Now);
    /// The next instant at which `handle_timeout` has something to do.
    fn poll_timeout(&self) -> Option<Now>;
    /// The next thing to carry out.
    #[allow(clippy::type_complexity, reason = "each part is the machine's own")]
    fn poll(&mut self) -> Option<Output<Self::Msg, Self::Event, Self::Job, Self::Addr>>;
}

/// What happens to a machine.
#[derive(Debug)]
pub enum Input<Msg, Command, Done, Addr = SocketAddr> {
    /// A dial asked for by [`Output::Dial`] came to nothing.
    DialFailed {
        /// The address dialled.
        addr: Addr,
        /// The dial's token.
        token: DialToken,
    },
    /// A link stands; nothing was sent on it yet.
    Connected(Link<Addr>),
    /// A whole message arrived.
    Received {
        /// From this link.
        link: LinkId,
        /// The message.
        msg: Msg,
    },
    /// The link's send queue has drained: paced bulk sending may go on. It comes once for every mark's worth of bytes
    /// (the driver's setting, about a mebibyte) that was queued, also when the queue was never that full at once.
    Writable {
        /// This link.
        link: LinkId,
    },
    /// The link is gone; nothing more comes from it.
    Disconnected {
        /// This link.
        link: LinkId,
        /// Why.
        cause: DisconnectCause,
    },
    /// A datagram arrived at the machine's own port. Its source may be forged, and it may come twice or late.
    Datagram {
        /// Where it says it came from.
        from: SocketAddr,
        /// Its payload.
        bytes: Bytes,
    },
    /// A job's answer.
    Done(Done),
    /// A request of the program.
    Command(Command),
}

/// What a machine wants done.
#[derive(Debug)]
pub enum Output<Msg, Event, Job, Addr = SocketAddr> {
    /// Queue a message on a link.
    Send {
        /// To this link.
        link: LinkId,
        /// The message.
        msg: Msg,
    },
    /// Open a link to an address.
    Dial {
        /// Where to.
        addr: Addr,
        /// Given back in `Connected` or `DialFailed`.
        token: DialToken,
    },
    /// Send what is queued, then close the link.
    Close {
        /// This link.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// Stop reading from the link, so that TCP pushes back on the sender.
    PauseRead {
        /// This link.
        link: LinkId,
    },
    /// Read from the link again.
    ResumeRead {
        /// This link.
        link: LinkId,
    },
    /// Send a datagram from the machine's own port. It may be lost without a word, also here, when the socket is full.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// Its payload.
        bytes: Bytes,
    },
    /// Slow work for someone else.
    Job(Job),
    /// News for the program.
    Event(Event),
}

/// Why a machine closes a link, in words for the log, and whether the address deserves another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// One line for people, such as `bad-txnmrklroot` or `too many connections`.
    pub text: Cow<'static, str>,
    /// The other side broke the protocol: do not come back soon.
    pub fault: bool,
}

impl CloseReason {
    /// The peer did nothing wrong (we are full, shutting down, not needed).
    pub fn benign(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            fault: false,
        }
    }

    /// The peer broke the protocol or lied.
    pub fn fault(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            fault: true,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisconnectCause {
    /// We closed it.
    Ours(CloseReason),
    /// The other side closed it.
    Remote,
    /// The transport failed, or the peer did not read what we sent.
    Transport(Cow<'static, str>),
    /// The bytes did not decode.
    Codec(String),
}

impl fmt::Display for DisconnectCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(reason) => write!(f, "closed by us: {reason}"),
            Self::Remote => f.write_str("closed by the peer"),
            Self::Transport(text) => write!(f, "transport: {text}"),
            Self::Codec(text) => write!(f, "malformed data: {text}"),
        }
    }
}
