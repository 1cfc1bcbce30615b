//! The compiled `dunlin` program: as a daemon on regtest, and as a command that runs to its end.

use crate::child::{Child, bound_command};
use crate::ports::free_address;
use crate::rpc::{Rpc, RpcError};
use crate::wait::wait_for;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The addresses of a daemon's doors.
#[derive(Debug, Clone, Copy)]
pub struct Doors {
    /// Bitcoin peers.
    pub p2p: SocketAddr,
    /// JSON-RPC.
    pub rpc: SocketAddr,
    /// BitTorrent peers.
    pub torrent: SocketAddr,
    /// Dashboard and REST.
    pub api: SocketAddr,
}

impl Doors {
    /// Four free ports of 127.0.0.1.
    pub fn free() -> Self {
        Doors {
            p2p: free_address(),
            rpc: free_address(),
            torrent: free_address(),
            api: free_address(),
        }
    }

    /// The options of `dunlin run` that open these doors on regtest with everything in `folder`.
    pub fn run_args(&self, folder: &Path) -> Vec<String> {
        let door = |name: &str, address: SocketAddr| [format!("--{name}"), address.to_string()];
        let mut args = vec!["run".to_owned(), "--network".to_owned(), "regtest".to_owned()];
        args.extend(["--data-dir".to_owned(), folder.display().to_string()]);
        args.extend(door("listen", self.p2p));
        args.extend(door("rpc-listen", self.rpc));
        args.extend(door("torrent-listen", self.torrent));
        args.extend(door("api-listen", self.api));
        args.extend(["--no-dht", "--no-lsd", "--no-pex", "--no-utp"].map(str::to_owned));
        args
    }
}

/// A running daemon with a data folder of its own; dropped, it is killed and the folder removed.
#[derive(Debug)]
pub struct Dunlin {
    child: Child,
    rpc: Rpc,
    doors: Doors,
    program: PathBuf,
    extra: Vec<String>,
    folder: tempfile::TempDir,
}

impl Dunlin {
    /// Starts `program` (a test's `env!("CARGO_BIN_EXE_dunlin")`) with more options of `dunlin run`, and waits until its
    /// RPC answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &str, extra: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-data-").tempdir()?;
        let doors = Doors::free();
        let extra: Vec<String> = extra.iter().map(|&arg| arg.to_owned()).collect();
        // The last one said counts.
        let said = extra.windows(2).rfind(|pair| pair[0] == "--network");
        let network = said.map_or("regtest", |pair| pair[1].as_str());
        let rpc = Rpc::new(doors.rpc.port(), &folder.path().join(network).join(".cookie"));
        let program = PathBuf::from(program);
        let child = launch(&program, folder.path(), &doors, &extra)?;
        let mut daemon = Dunlin {
            child,
            rpc,
            doors,
            program,
            extra,
            folder,
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait_for("dunlin answers", START_LIMIT, || {
            if let Err(error) = self.child.check_alive() {
                return Some(Err(error));
            }
            self.rpc.call("uptime", json!([])).ok().map(|_| Ok(()))
        })?
    }

    /// Starts it again on the same folder and ports, after it was stopped or killed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_unready()?;
        self.wait_ready()
    }

    /// The same, without waiting for an answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_unready(&mut self) -> Result<()> {
        self.child.kill9();
        self.child = launch(&self.program, self.folder.path(), &self.doors, &self.extra)?;
        Ok(())
    }

    /// Changes the options that the next start takes.
    pub fn set_extra(&mut self, extra: &[&str]) {
        self.extra = extra.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// SIGKILL at this instant.
    pub fn kill9(&mut self) {
        self.child.kill9();
    }

    /// Asks it to stop through its RPC and waits for a good end.
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub fn stop(&mut self) -> Result<()> {
        self.call("stop", json!([]))?;
        let status = self.child.wait(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "dunlin ended with {status}: {}",
            self.child.log_tail()
        );
        Ok(())
    }

    /// Presses Ctrl-C and waits.
    ///
    /// # Errors
    /// When it does not end.
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        self.child.interrupt(STOP_LIMIT)
    }

    /// Where others reach it.
    pub fn doors(&self) -> Doors {
        self.doors
    }

    /// Its data folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// What it printed and logged so far, over all starts: its output and every file in its folder that is a log.
    pub fn log(&self) -> String {
        let mut text = self.child.log();
        for folder in [self.folder.path().to_owned(), self.folder.path().join("regtest")] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "log") && path.is_file() {
                    text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()));
                }
            }
        }
        text
    }

    /// The address of its dashboard with the key to it, as it was logged at the last start.
    ///
    /// # Errors
    /// When it logged none.
    pub fn dashboard(&self) -> Result<String> {
        let log = self.log();
        let at = log.rsplit_once("dashboard at ").context("no dashboard in the log")?.1;
        Ok(at.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Fails with the end of its output when it no longer runs.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.child.check_alive()
    }

    /// Its JSON-RPC.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Calls an RPC method.
    ///
    /// # Errors
    /// When it refuses or does not answer.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.rpc.call(method, params)
    }

    /// Height of its tip.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn height(&self) -> Result<u64> {
        self.call("getblockcount", json!([]))?
            .as_u64()
            .context("a height is a number")
    }

    /// Hash of its tip.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn best_hash(&self) -> Result<String> {
        Ok(self
            .call("getbestblockhash", json!([]))?
            .as_str()
            .context("a hash is a string")?
            .to_owned())
    }

    /// Ids of the transactions in its mempool.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn mempool(&self) -> Result<Vec<String>> {
        let ids = self.call("getrawmempool", json!([]))?;
        let ids = ids.as_array().context("a list of ids")?;
        Ok(ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// What it says of its Bitcoin peers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn peers(&self) -> Result<Vec<Value>> {
        Ok(self
            .call("getpeerinfo", json!([]))?
            .as_array()
            .context("a list of peers")?
            .clone())
    }

    /// Runs `dunlin ARGS --data-dir FOLDER` against this daemon.
    ///
    /// # Errors
    /// When it cannot be started or does not end within a minute.
    pub fn cli(&self, args: &[&str]) -> Result<Output> {
        let folder = self.folder.path().display().to_string();
        let args: Vec<&str> = args.iter().copied().chain(["--data-dir", &folder]).collect();
        run(&self.program, args, START_LIMIT)
    }
}

fn launch(program: &Path, folder: &Path, doors: &Doors, extra: &[String]) -> Result<Child> {
    let mut command = bound_command(program);
    command.args(doors.run_args(folder)).args(extra);
    Child::start("dunlin", command, &folder.join("output.txt"))
}

/// How a command ended and what it said.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Output {
    /// The stdout of a command that ended well.
    ///
    /// # Errors
    /// When it ended otherwise.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == Some(0), "ended with {:?}: {}", self.code, self.stderr);
        Ok(self.stdout)
    }
}

/// Runs `program ARGS` to its end, with stdin closed and a limit, in a folder of its own.
///
/// # Errors
/// When it cannot be started, or still runs at the limit (it is killed then).
pub fn run(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>, limit: Duration) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let mut command = bound_command(program);
    command.args(args).current_dir(folder.path()).env("HOME", folder.path());
    command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?);
    let mut child = Child::adopt("dunlin", crate::child::spawn(command)?, &err);
    let status = child.wait(limit)?;
    let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Output {
        code: status.code(),
        stdout: read(&out)?,
        stderr: read(&err)?,
    })
}

/// Starts `program ARGS` and leaves it running; both its streams go to `log`.
///
/// # Errors
/// When it cannot be started.
pub fn start_command(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>, log: &Path) -> Result<Child> {
    let mut command = bound_command(program);
    command.args(args);
    if let Some(folder) = log.parent() {
        command.current_dir(folder).env("HOME", folder);
    }
    Child::start("dunlin", command, log)
}
