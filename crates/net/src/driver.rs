//! The machine, its links, and what is done with its outputs.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dunlin_peer::{
    CloseReason, Codec, Direction, DisconnectCause, Input, Link as LinkInfo, LinkId, Machine, Now, Output,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, Semaphore};

use crate::buffers::Buffers;
use crate::config::ReactorConfig;
use crate::handle::Completer;
use crate::link::{Link, run};
use crate::registry::{Counters, Registry};
use crate::sam::Session;
use crate::{Clock, datagrams, dial};

type MakeCodec<C> = Box<dyn Fn(Direction) -> C>;
type RunJob<M> = Box<dyn FnMut(<M as Machine>::Job, Completer<<M as Machine>::Done>)>;
type TellEvent<M> = Box<dyn FnMut(<M as Machine>::Event)>;

/// Everything on the reactor's thread, shared by its tasks.
///
/// The tasks call [`Driver::input`] only from the top of their own poll, never from within a machine's call, so each
/// `RefCell` is borrowed for the length of one call at most.
pub(crate) struct Driver<M: Machine, C> {
    pub(crate) config: ReactorConfig,
    pub(crate) clock: Clock,
    machine: RefCell<M>,
    links: RefCell<HashMap<LinkId, Rc<Link<C>>>>,
    pub(crate) sockets: RefCell<Vec<Rc<UdpSocket>>>,
    pub(crate) buffers: Buffers,
    next_link: Cell<u64>,
    inbound: Cell<usize>,
    make_codec: MakeCodec<C>,
    run_job: RefCell<RunJob<M>>,
    tell_event: RefCell<TellEvent<M>>,
    answers: UnboundedSender<M::Done>,
    registry: Arc<Registry>,
    pub(crate) dials: Semaphore,
    pub(crate) i2p: Option<Rc<Session>>,
    /// The deadline that the main loop sleeps for.
    armed: Cell<Option<Now>>,
    /// Wakes the main loop: an earlier deadline, or the last link went while stopping.
    pub(crate) changed: Notify,
    stopping: Cell<bool>,
    /// Held by each task that still says farewell to a peer.
    pub(crate) lingering: Rc<()>,
}

/// The closures that join a reactor to its program.
pub(crate) struct Hooks<M: Machine, C> {
    pub(crate) make_codec: MakeCodec<C>,
    pub(crate) run_job: RunJob<M>,
    pub(crate) tell_event: TellEvent<M>,
}

impl<M, C> Driver<M, C>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    pub(crate) fn new(
        config: ReactorConfig,
        clock: Clock,
        machine: M,
        hooks: Hooks<M, C>,
        answers: UnboundedSender<M::Done>,
        registry: Arc<Registry>,
    ) -> Rc<Self> {
        let dials = Semaphore::new(config.max_dialing.max(1));
        let i2p = config.i2p.clone().map(|config| Rc::new(Session::new(config)));
        Rc::new(Self {
            config,
            clock,
            machine: RefCell::new(machine),
            links: RefCell::new(HashMap::new()),
            sockets: RefCell::default(),
            buffers: Buffers::default(),
            next_link: Cell::new(1),
            inbound: Cell::new(0),
            make_codec: hooks.make_codec,
            run_job: RefCell::new(hooks.run_job),
            tell_event: RefCell::new(hooks.tell_event),
            answers,
            registry,
            dials,
            i2p,
            armed: Cell::new(None),
            changed: Notify::new(),
            stopping: Cell::new(false),
            lingering: Rc::new(()),
        })
    }

    /// Feeds the machine and carries out what it wants.
    pub(crate) fn input(self: &Rc<Self>, input: Input<M::Msg, M::Command, M::Done, M::Addr>) {
        self.machine.borrow_mut().handle(self.clock.now(), input);
        self.carry_out();
    }

    /// Lets the machine do what is due, at most once.
    pub(crate) fn timeout(self: &Rc<Self>) {
        let now = self.clock.now();
        let due = self.machine.borrow().poll_timeout().is_some_and(|at| at <= now);
        if due {
            self.machine.borrow_mut().handle_timeout(now);
            self.carry_out();
        }
    }

    pub(crate) fn carry_out(self: &Rc<Self>) {
        loop {
            let Some(output) = self.machine.borrow_mut().poll() else {
                return;
            };
            match output {
                Output::Send { link, msg } => {
                    if let Some(link) = self.links.borrow().get(&link) {
                        link.send(&msg, &self.config, &self.clock);
                    }
                }
                Output::Dial { addr, token } => {
                    if !self.stopping.get() {
                        tokio::task::spawn_local(dial::run(Rc::clone(self), addr, token));
                    }
                }
                Output::Close { link, reason } => {
                    if let Some(link) = self.links.borrow().get(&link) {
                        link.close(reason, self.clock.now() + self.config.close_timeout);
                    }
                }
                Output::PauseRead { link } => {
                    if let Some(link) = self.links.borrow().get(&link) {
                        link.pause();
                    }
                }
                Output::ResumeRead { link } => {
                    if let Some(link) = self.links.borrow().get(&link) {
                        link.resume();
                    }
                }
                Output::Datagram { to, bytes } => datagrams::send(&self.sockets.borrow(), to, &bytes),
                Output::Job(job) => {
                    let completer = Completer::new(self.answers.clone());
                    (self.run_job.borrow_mut())(job, completer);
                }
                Output::Event(event) => (self.tell_event.borrow_mut())(event),
            }
        }
    }

    /// Takes in a connected socket: tells the machine and starts the link's task.
    pub(crate) fn open(
        self: &Rc<Self>,
        stream: TcpStream,
        addr: M::Addr,
        direction: Direction,
        token: Option<dunlin_peer::DialToken>,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            // It only costs latency; a socket that is really broken says so at the first read.
            tracing::debug!(%addr, %error, "cannot set TCP_NODELAY");
        }
        let id = LinkId(self.next_link.get());
        self.next_link.set(id.0 + 1);
        if direction == Direction::Inbound {
            self.inbound.set(self.inbound.get() + 1);
        }
        let now = self.clock.now();
        let counters = Arc::new(Counters::new(addr.into(), direction, now.unix_secs()));
        self.registry.opened(id, Arc::clone(&counters));
        let codec = (self.make_codec)(direction);
        let link = Rc::new(Link::new(id, codec, counters, now));
        self.links.borrow_mut().insert(id, Rc::clone(&link));
        tracing::debug!(reactor = %self.config.name, link = %id, %addr, %direction, "link opened");
        let bind = stream.local_addr().ok();
        tokio::task::spawn_local(run(Rc::clone(self), link, stream, direction));
        self.input(Input::Connected(LinkInfo {
            id,
            addr,
            bind,
            direction,
            token,
        }));
        self.settle();
    }

    /// Removes a link and tells the machine; called once, by the link's own task.
    pub(crate) fn gone(self: &Rc<Self>, id: LinkId, direction: Direction, cause: DisconnectCause) {
        if self.links.borrow_mut().remove(&id).is_none() {
            return;
        }
        self.registry.ended(id);
        if direction == Direction::Inbound {
            self.inbound.set(self.inbound.get() - 1);
        }
        tracing::debug!(reactor = %self.config.name, link = %id, %cause, "link ended");
        self.input(Input::Disconnected { link: id, cause });
        self.settle();
        if self.stopping.get() && self.links.borrow().is_empty() {
            self.changed.notify_one();
        }
    }

    /// After a task's turn: wakes the main loop when the machine wants to be woken earlier than it is set for.
    pub(crate) fn settle(&self) {
        let wanted = self.machine.borrow().poll_timeout();
        let earlier = match (wanted, self.armed.get()) {
            (Some(wanted), Some(armed)) => wanted < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if earlier {
            self.changed.notify_one();
        }
    }

    /// The machine's next deadline, which the main loop now sleeps for.
    pub(crate) fn arm(&self) -> Option<Now> {
        let deadline = self.machine.borrow().poll_timeout();
        self.armed.set(deadline);
        deadline
    }

    pub(crate) fn inbound_full(&self) -> bool {
        self.inbound.get() >= self.config.max_inbound
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.links.borrow().is_empty()
    }

    /// Looks after links that do not move: closing ones at their deadline, those whose peer does not read.
    pub(crate) fn tick(&self) {
        self.buffers.tick();
        let now = self.clock.now();
        for link in self.links.borrow().values() {
            link.tick(now, &self.config);
        }
    }

    /// Begins the end: no more dials, every link is asked to close.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        let deadline = self.clock.now() + self.config.close_timeout;
        for link in self.links.borrow().values() {
            link.close(CloseReason::benign("shutting down"), deadline);
        }
    }

    /// Ends the links that are still there after the time for closing.
    pub(crate) fn abandon(self: &Rc<Self>) {
        let mut left: Vec<LinkId> = self.links.borrow().keys().copied().collect();
        left.sort_unstable();
        for id in left {
            // The direction only matters to the inbound count, which nobody needs any more.
            let cause = DisconnectCause::Ours(CloseReason::benign("shutting down"));
            self.gone(id, Direction::Outbound, cause);
        }
    }
}

/// How often [`Driver::tick`] runs.
pub(crate) const TICK: Duration = Duration::from_millis(500);
