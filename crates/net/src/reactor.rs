//! The thread that drives a machine.

use std::io;
use std::net::{TcpListener as StdListener, UdpSocket as StdSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dunlin_peer::{Codec, Direction, Input, Machine, Now};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::config::ReactorConfig;
use crate::driver::{Driver, Hooks, TICK};
use crate::handle::{Completer, Handle, Order};
use crate::registry::Registry;
use crate::{Clock, NetError, datagrams, listen, sam};

/// Orders and answers taken in before the links have their turn again.
const BATCH: usize = 64;
/// A machine whose deadline has passed already is not called more often than this.
const MIN_SLEEP: Duration = Duration::from_millis(1);
/// Beyond the close timeout, how long the end may wait for the tasks to notice.
const GRACE: Duration = Duration::from_secs(1);

/// How long the end waits for peers to take in what was sent to them last.
const FAREWELL: Duration = Duration::from_millis(200);

/// Starts a reactor on a thread of its own.
///
/// The listeners are bound before it returns. `make_machine`, `make_codec`, `jobs` and `on_event` run on the
/// reactor's thread and must not block: `jobs` hands the job to a thread and gives the [`Completer`] along.
/// A panic of the machine ends the reactor and is logged; [`Handle::is_running`] then says `false`.
///
/// # Errors
/// [`NetError::Listen`] names the address that cannot be listened on.
pub fn spawn<M, C>(
    config: ReactorConfig,
    make_machine: impl FnOnce(Now) -> M + Send + 'static,
    make_codec: impl Fn(Direction) -> C + Send + 'static,
    jobs: impl FnMut(M::Job, Completer<M::Done>) + Send + 'static,
    on_event: impl FnMut(M::Event) + Send + 'static,
) -> Result<Handle<M::Command>, NetError>
where
    M: Machine + 'static,
    M::Command: Send + 'static,
    M::Done: Send + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut listeners = Vec::new();
    let mut local_addrs = Vec::new();
    let mut sockets = Vec::new();
    for addr in &config.listen {
        let (listener, socket, local) = listen::bind(*addr, config.datagrams)?;
        listeners.push(listener);
        sockets.extend(socket);
        local_addrs.push(local);
    }
    let groups = datagrams::join(&config.groups, &sockets);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NetError::Start)?;
    let (orders_in, orders) = unbounded_channel();
    let registry = Arc::new(Registry::default());
    let shared = Arc::clone(&registry);
    let name = config.name.clone();
    let body = move || {
        let (answers_in, answers) = unbounded_channel();
        let clock = Clock::start();
        let hooks = Hooks {
            make_codec: Box::new(make_codec),
            run_job: Box::new(jobs),
            tell_event: Box::new(on_event),
        };
        let machine = make_machine(clock.now());
        let driver = Driver::<M, C>::new(config, clock, machine, hooks, answers_in, shared);
        run(&runtime, driver, listeners, (sockets, groups), orders, answers);
    };
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(body)
        .map_err(NetError::Start)?;
    Ok(Handle::new(orders_in, registry, local_addrs, thread))
}

fn run<M, C>(
    runtime: &Runtime,
    driver: Rc<Driver<M, C>>,
    listeners: Vec<StdListener>,
    (sockets, groups): (Vec<StdSocket>, Vec<StdSocket>),
    mut orders: UnboundedReceiver<Order<M::Command>>,
    mut answers: UnboundedReceiver<M::Done>,
) where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let tasks = LocalSet::new();
    tasks.block_on(runtime, async {
        let accepting = accept_all(&driver, listeners);
        let mut receiving = datagrams::receive_all(&driver, sockets);
        receiving.extend(datagrams::receive_only(&driver, groups));
        let sam = driver.i2p.clone().filter(|_| accepts_i2p(&driver.config));
        receiving.extend(sam.map(|session| tokio::task::spawn_local(sam::run(Rc::clone(&driver), session))));
        // What the machine wanted before its first input.
        driver.carry_out();
        serve(&driver, &mut orders, &mut answers).await;
        orders.close();
        for task in accepting.into_iter().chain(receiving) {
            task.abort();
        }
        driver.stop();
        let limit = driver.config.close_timeout + GRACE;
        if timeout(limit, wind_down(&driver, &mut answers)).await.is_err() {
            driver.abandon();
        }
        let farewell = async {
            while Rc::strong_count(&driver.lingering) > 1 {
                sleep(FAREWELL / 20).await;
            }
        };
        // Peers that do not answer our close in time are cut off.
        let _ = timeout(FAREWELL, farewell).await;
    });
}

fn accepts_i2p(config: &ReactorConfig) -> bool {
    config.i2p.as_ref().is_some_and(|i2p| i2p.accept)
}

fn accept_all<M, C>(driver: &Rc<Driver<M, C>>, listeners: Vec<StdListener>) -> Vec<JoinHandle<()>>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let start = |listener: StdListener| -> io::Result<JoinHandle<()>> {
        let listener = TcpListener::from_std(listener)?;
        Ok(tokio::task::spawn_local(listen::run(Rc::clone(driver), listener)))
    };
    let mut tasks = Vec::new();
    for listener in listeners {
        match start(listener) {
            Ok(task) => tasks.push(task),
            Err(error) => tracing::error!(%error, "cannot watch a listener"),
        }
    }
    tasks
}

/// The main loop, until the order to shut down.
async fn serve<M, C>(
    driver: &Rc<Driver<M, C>>,
    orders: &mut UnboundedReceiver<Order<M::Command>>,
    answers: &mut UnboundedReceiver<M::Done>,
) where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut order_batch = Vec::with_capacity(BATCH);
    let mut answer_batch = Vec::with_capacity(BATCH);
    loop {
        let deadline = driver.arm();
        let earliest = driver.clock.now() + MIN_SLEEP;
        let due = async {
            match deadline {
                Some(at) => sleep_until(driver.clock.deadline(at.max(earliest))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = orders.recv_many(&mut order_batch, BATCH) => {
                if count == 0 {
                    return;
                }
                for order in order_batch.drain(..) {
                    match order {
                        Order::Command(command) => driver.input(Input::Command(command)),
                        Order::Shutdown => return,
                    }
                }
            }
            // The driver holds a sender, so this never ends.
            _ = answers.recv_many(&mut answer_batch, BATCH) => {
                for done in answer_batch.drain(..) {
                    driver.input(Input::Done(done));
                }
            }
            () = due => driver.timeout(),
            () = driver.changed.notified() => {}
            _ = tick.tick() => driver.tick(),
        }
    }
}

/// Lets the links send what is queued; answers to jobs still reach the machine.
async fn wind_down<M, C>(driver: &Rc<Driver<M, C>>, answers: &mut UnboundedReceiver<M::Done>)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut tick = interval(TICK);
    while !driver.is_empty() {
        tokio::select! {
            answer = answers.recv() => {
                if let Some(done) = answer {
                    driver.input(Input::Done(done));
                }
            }
            () = driver.changed.notified() => {}
            _ = tick.tick() => driver.tick(),
        }
    }
}
