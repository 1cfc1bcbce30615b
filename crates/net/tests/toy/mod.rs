//! A small protocol to drive reactors with: frames of a length and a payload, and a machine told by commands.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use dunlin_net::{Completer, Handle, ReactorConfig, spawn};
use dunlin_peer::{
    CloseReason, Codec, CodecError, DialToken, DisconnectCause, Input, Link, LinkId, Machine, NetAddr, Now, Outbox,
    Output, SendBuf,
};

pub const PATIENCE: Duration = Duration::from_secs(30);
const MAX_FRAME: u32 = 16 << 20;

pub struct Frames;

impl Codec for Frames {
    type Msg = Bytes;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
        let Some(head) = input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head);
        if length > MAX_FRAME {
            return Err(CodecError::new("frame too long"));
        }
        let length = length as usize;
        if input.len() < 4 + length {
            return Ok(None);
        }
        input.advance(4);
        Ok(Some(input.split_to(length).freeze()))
    }

    fn encode(&mut self, msg: &Bytes, out: &mut SendBuf) {
        out.put_slice(&(msg.len() as u32).to_be_bytes());
        out.put_bytes(msg.clone());
    }
}

#[derive(Debug)]
pub enum Command {
    Dial(NetAddr, u64),
    Send(LinkId, Bytes),
    Close(LinkId),
    Pause(LinkId),
    Resume(LinkId),
    /// A timer, this long from now.
    Timer(Duration),
    Job(u64),
    Datagram(SocketAddr, Bytes),
    Panic,
}

#[derive(Debug)]
pub enum Event {
    Connected(Link<NetAddr>),
    Received(LinkId, Bytes),
    Writable(LinkId),
    Disconnected(LinkId, DisconnectCause),
    DialFailed(NetAddr, DialToken),
    Timer(Duration),
    JobDone(u64),
    Datagram(SocketAddr, Bytes),
}

/// What the machine does by itself.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Sends every message back.
    pub echo: bool,
    /// Answers every message with this many zeros.
    pub answer: Option<usize>,
    /// Sends this on every new link.
    pub greeting: Option<Bytes>,
    /// Closes a link right after its first message and this answer.
    pub last_words: Option<Bytes>,
    /// Keeps at most this many links: the oldest goes.
    pub keep: Option<usize>,
}

pub struct Toy {
    manners: Manners,
    links: VecDeque<LinkId>,
    timer: Option<(Now, Now)>,
    out: Outbox<Bytes, Event, u64, NetAddr>,
}

impl Toy {
    pub fn new(manners: Manners) -> Self {
        Self {
            manners,
            links: VecDeque::new(),
            timer: None,
            out: Outbox::default(),
        }
    }

    fn command(&mut self, now: Now, command: Command) {
        match command {
            Command::Dial(addr, token) => self.out.dial(addr, DialToken(token)),
            Command::Send(link, msg) => self.out.send(link, msg),
            Command::Close(link) => self.out.close(link, CloseReason::benign("told to")),
            Command::Pause(link) => self.out.push(Output::PauseRead { link }),
            Command::Resume(link) => self.out.push(Output::ResumeRead { link }),
            Command::Timer(after) => self.timer = Some((now, now + after)),
            Command::Job(number) => self.out.job(number),
            Command::Datagram(to, bytes) => self.out.datagram(to, bytes),
            Command::Panic => panic!("told to"),
        }
    }
}

impl Machine for Toy {
    type Msg = Bytes;
    type Addr = NetAddr;
    type Command = Command;
    type Event = Event;
    type Job = u64;
    type Done = u64;

    fn handle(&mut self, now: Now, input: Input<Bytes, Command, u64, NetAddr>) {
        match input {
            Input::Connected(link) => {
                self.links.push_back(link.id);
                if let Some(greeting) = &self.manners.greeting {
                    self.out.send(link.id, greeting.clone());
                }
                if self.manners.keep.is_some_and(|keep| self.links.len() > keep)
                    && let Some(oldest) = self.links.pop_front()
                {
                    self.out.close(oldest, CloseReason::benign("evicted"));
                }
                self.out.event(Event::Connected(link));
            }
            Input::Received { link, msg } => {
                if self.manners.echo {
                    self.out.send(link, msg.clone());
                }
                if let Some(length) = self.manners.answer {
                    self.out.send(link, Bytes::from(vec![0; length]));
                }
                if let Some(words) = &self.manners.last_words {
                    self.out.send(link, words.clone());
                    self.out.close(link, CloseReason::benign("said it all"));
                    self.out.send(link, Bytes::from_static(b"never sent"));
                }
                self.out.event(Event::Received(link, msg));
            }
            Input::Writable { link } => self.out.event(Event::Writable(link)),
            Input::Disconnected { link, cause } => {
                self.links.retain(|other| *other != link);
                self.out.event(Event::Disconnected(link, cause));
            }
            Input::DialFailed { addr, token } => self.out.event(Event::DialFailed(addr, token)),
            Input::Datagram { from, bytes } => {
                if self.manners.echo {
                    self.out.datagram(from, bytes.clone());
                }
                self.out.event(Event::Datagram(from, bytes));
            }
            Input::Done(number) => self.out.event(Event::JobDone(number)),
            Input::Command(command) => self.command(now, command),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some((set, due)) = self.timer
            && due <= now
        {
            self.timer = None;
            self.out.event(Event::Timer(now.since(set)));
        }
    }

    fn poll_timeout(&self) -> Option<Now> {
        self.timer.map(|(_, due)| due)
    }

    fn poll(&mut self) -> Option<Output<Bytes, Event, u64, NetAddr>> {
        self.out.pop()
    }
}

/// A running toy and what it told.
pub struct Running {
    pub handle: Handle<Command>,
    pub events: Receiver<Event>,
}

pub fn start(config: ReactorConfig, manners: Manners) -> Running {
    let (tx, events) = channel();
    let handle = spawn(
        config,
        move |_| Toy::new(manners),
        |_| Frames,
        |job: u64, completer: Completer<u64>| {
            std::thread::spawn(move || completer.complete(job * 2));
        },
        move |event| {
            // The test may have stopped listening.
            let _ = tx.send(event);
        },
    );
    Running {
        handle: handle.unwrap(),
        events,
    }
}

pub fn config() -> ReactorConfig {
    ReactorConfig::new("toy").listen("127.0.0.1:0".parse().unwrap())
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.handle.local_addrs()[0]
    }

    pub fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event in time")
    }

    /// The first event that `pick` takes; others are dropped.
    pub fn wait<T>(&self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
        panic!("the event did not come");
    }

    pub fn connected(&self) -> Link<NetAddr> {
        self.wait(|event| match event {
            Event::Connected(link) => Some(link),
            _ => None,
        })
    }

    pub fn received(&self) -> (LinkId, Bytes) {
        self.wait(|event| match event {
            Event::Received(link, msg) => Some((link, msg)),
            _ => None,
        })
    }

    pub fn disconnected(&self) -> (LinkId, DisconnectCause) {
        self.wait(|event| match event {
            Event::Disconnected(link, cause) => Some((link, cause)),
            _ => None,
        })
    }

    /// Events of the next `time`.
    pub fn during(&self, time: Duration) -> Vec<Event> {
        let deadline = Instant::now() + time;
        let mut all = Vec::new();
        loop {
            match self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(event) => all.push(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return all,
            }
        }
    }

    pub fn dial(&self, other: &Running) -> LinkId {
        assert!(self.handle.command(Command::Dial(other.addr().into(), 7)));
        let link = self.connected();
        assert_eq!(link.token, Some(DialToken(7)));
        link.id
    }

    pub fn send(&self, link: LinkId, msg: impl Into<Bytes>) {
        assert!(self.handle.command(Command::Send(link, msg.into())));
    }
}

/// A peer with a plain socket.
pub struct Raw(pub TcpStream);

impl Raw {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, msg: &[u8]) {
        let mut frame = (msg.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(msg);
        self.0.write_all(&frame).unwrap();
    }

    pub fn receive(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        let mut msg = vec![0; u32::from_be_bytes(head) as usize];
        self.0.read_exact(&mut msg).unwrap();
        msg
    }

    /// Whether the other side has closed and sent nothing more.
    pub fn at_end(&mut self) -> bool {
        self.0.read(&mut [0; 16]).unwrap() == 0
    }
}
