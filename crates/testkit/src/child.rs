//! Processes that tests start, and only those: each is ended by its process id, never by a name.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

type Spawned = std::io::Result<std::process::Child>;
type Order = (Command, Sender<Spawned>);

/// Starts processes from one thread that lives as long as this program does.
///
/// Linux delivers a parent-death signal when the *thread* that started the child ends. Test threads come and go, this
/// one stays, so a peer dies with the test program and not before.
fn spawner() -> &'static Mutex<Sender<Order>> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The one who asked may have given up; then the child is dropped unstarted or reaped by init.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    })
}

/// A command that ends with SIGKILL as soon as the process that started it is gone.
pub fn bound_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts `command` from the long-lived thread.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn(command: Command) -> Result<std::process::Child> {
    let name = describe(&command);
    let (answer, inbox) = channel();
    {
        let orders = spawner()
            .lock()
            .map_err(|_| anyhow::anyhow!("the spawning thread is gone"))?;
        orders.send((command, answer)).context("the spawning thread is gone")?;
    }
    inbox
        .recv()
        .context("the spawning thread is gone")?
        .with_context(|| format!("cannot start {name}"))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A running process whose output goes to a file; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` (see [`bound_command`]) with stdin closed and its output appended to `log`.
    ///
    /// # Errors
    /// When the log file cannot be written or the program not started.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = spawn(command)?;
        Ok(Child {
            name: name.to_owned(),
            process,
            log: log.to_owned(),
            status: None,
        })
    }

    /// Wraps a process started with [`spawn`] whose pipes the caller has taken.
    pub fn adopt(name: &str, process: std::process::Child, log: &Path) -> Self {
        Child {
            name: name.to_owned(),
            process,
            log: log.to_owned(),
            status: None,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the process wrote so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// The exit status, once the process has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    /// Fails with the end of the log when the process is no longer running.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.exited() {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); its last words:\n{}", self.name, self.log_tail()),
        }
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} still runs after {} s; its last words:\n{}",
                    self.name,
                    limit.as_secs(),
                    self.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&mut self, signal: Signal) {
        // A process that was reaped has given its id back: it must not be signalled any more.
        if self.exited().is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Asks the process to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Presses Ctrl-C (SIGINT) and waits.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub fn interrupt(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::INT);
        self.wait(limit)
    }

    /// SIGKILL at this instant; returns when the process is gone.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        if self.status.is_none() {
            self.status = self.process.wait().ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- the last words of {} ---\n{}", self.name, self.log_tail());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Child {
        let mut command = bound_command("sh");
        command.args(["-c", "echo started; exec sleep 1000"]);
        Child::start("sleeper", command, &folder.join("log")).unwrap()
    }

    fn runs(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn dropping_a_child_ends_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let child = sleeper(folder.path());
        let pid = child.pid();
        assert!(runs(pid));
        drop(child);
        assert!(!runs(pid));
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let mut child = std::thread::spawn(move || sleeper(&path)).join().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        child.check_alive().unwrap();
        assert_eq!(child.log(), "started\n");
        assert!(!child.terminate(Duration::from_secs(5)).unwrap().success());
        assert!(child.check_alive().unwrap_err().to_string().contains("started"));
    }
}
