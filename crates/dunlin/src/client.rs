//! Talks to the running peer over its JSON-RPC interface, as any other program could.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_chain::Network;
use serde_json::{Value, json};

use crate::cli::ConnectArgs;
use crate::config;
use crate::daemon::data_dir::{COOKIE_FILE, RPC_ADDRESS_FILE, network_dir};

/// Mining many blocks or stopping takes its time; a peer that is silent for longer hangs.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A connection to one running peer.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
    authorization: String,
    addr: String,
}

impl Client {
    /// Finds the running peer by its cookie.
    pub(crate) fn find(args: &ConnectArgs) -> anyhow::Result<Self> {
        Self::find_within(args, TIMEOUT)
    }

    /// [`Client::find`] for a call that may take as long as `timeout`.
    pub(crate) fn find_within(args: &ConnectArgs, timeout: Duration) -> anyhow::Result<Self> {
        let data_dir = args.data_dir.clone().unwrap_or_else(config::default_data_dir);
        let dir = match args.network {
            Some(network) => network_dir(&data_dir, network),
            None => running_dir(&data_dir)?,
        };
        let cookie_file = dir.join(COOKIE_FILE);
        let cookie = std::fs::read_to_string(&cookie_file).with_context(|| not_running(&dir))?;
        let addr = match args.rpc_connect {
            Some(addr) => addr,
            None => {
                let file = dir.join(RPC_ADDRESS_FILE);
                let text = std::fs::read_to_string(&file).with_context(|| not_running(&dir))?;
                text.trim()
                    .parse()
                    .with_context(|| format!("{} does not hold an address", file.display()))?
            }
        };
        Ok(Self::with_timeout(addr, cookie.trim(), timeout))
    }

    /// A client for a known address and `user:password`.
    pub(crate) fn new(addr: SocketAddr, login: &str) -> Self {
        Self::with_timeout(addr, login, TIMEOUT)
    }

    fn with_timeout(addr: SocketAddr, login: &str, timeout: Duration) -> Self {
        Self::at(addr.to_string(), login, Some(timeout))
    }

    /// A client for `host:port` and `user:password`; without `timeout` a call may take for ever.
    pub(crate) fn at(addr: String, login: &str, timeout: Option<Duration>) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(timeout)
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            url: format!("http://{addr}/"),
            authorization: format!("Basic {}", BASE64_STANDARD.encode(login)),
            addr,
        }
    }

    /// Whether both talk to the same run of the same peer: each run has a cookie of its own.
    pub(crate) fn is_same_run(&self, other: &Self) -> bool {
        self.authorization == other.authorization
    }

    /// Calls a method; `params` is a JSON array or object.
    pub(crate) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        Ok(self.ask(method, params)?)
    }

    /// [`Client::call`] for who must tell the reasons of a failure apart.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn ask(&self, method: &str, params: Value) -> Result<Value, CallError> {
        let addr = || self.addr.clone();
        let no_answer = |error: ureq::Error| CallError::NoAnswer {
            addr: addr(),
            error: error.to_string(),
        };
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).to_string();
        let mut response = self
            .agent
            .post(&self.url)
            .header("Authorization", &self.authorization)
            .header("Content-Type", "application/json")
            .send(body)
            .map_err(no_answer)?;
        if response.status() == 401 {
            return Err(CallError::Refused { addr: addr() });
        }
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string();
        let mut answer: Value =
            serde_json::from_str(&text.map_err(no_answer)?).map_err(|_| CallError::Foreign { addr: addr() })?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("unknown error");
            return Err(CallError::Method {
                code: error.get("code").and_then(Value::as_i64).unwrap_or(-1),
                message: message.to_owned(),
            });
        }
        Ok(answer.get_mut("result").map(Value::take).unwrap_or(Value::Null))
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody is there, or not in time.
    #[error("no answer from the peer at {addr}: {error}")]
    NoAnswer {
        /// Whom we asked.
        addr: String,
        /// What became of it.
        error: String,
    },
    /// The login is wrong.
    #[error("the peer at {addr} refuses our cookie; is it another peer than the one in this data directory?")]
    Refused {
        /// Whom we asked.
        addr: String,
    },
    /// What answers does not speak JSON-RPC.
    #[error("what answers at {addr} is no Dunlin peer")]
    Foreign {
        /// Whom we asked.
        addr: String,
    },
    /// The method failed.
    #[error("{message}")]
    Method {
        /// Core's number of the error.
        code: i64,
        /// Why.
        message: String,
    },
}

fn not_running(dir: &Path) -> String {
    format!("no peer runs in {}; start one with `dunlin run`", dir.display())
}

/// The network folder of the one peer that runs in `data_dir`.
fn running_dir(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let mut running = Network::ALL
        .into_iter()
        .filter(|network| network_dir(data_dir, *network).join(COOKIE_FILE).exists())
        .collect::<Vec<_>>();
    match (running.pop(), running.is_empty()) {
        (Some(network), true) => Ok(network_dir(data_dir, network)),
        (None, _) => bail!("{}", not_running(data_dir)),
        (Some(_), false) => {
            bail!("several peers run in {}; choose one with --network", data_dir.display())
        }
    }
}
