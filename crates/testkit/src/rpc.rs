//! JSON-RPC 1.0 over HTTP as Bitcoin Core speaks it, with its cookie file.

use base64::Engine as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest answer read: a block in verbose form fits many times.
const MAX_ANSWER: u64 = 256 << 20;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody answered, or the connection broke.
    #[error("{method}: {text}")]
    Transport {
        /// The method called.
        method: String,
        /// What the HTTP client said.
        text: String,
    },
    /// The server answered, but not with JSON-RPC.
    #[error("{method}: HTTP status {status}: {body}")]
    Http {
        /// The method called.
        method: String,
        /// HTTP status code.
        status: u16,
        /// The answer's body.
        body: String,
    },
    /// The server answered with an error object.
    #[error("{method}: error {code}: {message}")]
    Reply {
        /// The method called.
        method: String,
        /// JSON-RPC error code, Core's numbers.
        code: i64,
        /// The server's words.
        message: String,
    },
}

impl RpcError {
    /// The server's error code, when it answered with an error object.
    pub fn code(&self) -> Option<i64> {
        match self {
            RpcError::Reply { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// A caller of one server. The cookie is read anew for each call, for a restarted server writes another.
#[derive(Debug, Clone)]
pub struct Rpc {
    url: String,
    cookie: PathBuf,
    agent: ureq::Agent,
}

/// An HTTP client that goes through no proxy and reports every status as an answer.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .build()
        .new_agent()
}

impl Rpc {
    /// Calls the server at `http://127.0.0.1:port` with the cookie in `cookie`.
    pub fn new(port: u16, cookie: &Path) -> Self {
        Rpc {
            url: format!("http://127.0.0.1:{port}/"),
            cookie: cookie.to_owned(),
            agent: agent(Duration::from_secs(120)),
        }
    }

    /// Address of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The content of the cookie file (`user:password`).
    ///
    /// # Errors
    /// When there is none yet.
    pub fn cookie(&self) -> std::io::Result<String> {
        Ok(std::fs::read_to_string(&self.cookie)?.trim().to_owned())
    }

    /// Calls `method` and returns its result.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let request = json!({"jsonrpc": "1.0", "id": "testkit", "method": method, "params": params});
        let (status, body) = self.post(method, request.to_string().as_bytes())?;
        let answer: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            return Err(RpcError::Reply {
                method: method.to_owned(),
                code: error["code"].as_i64().unwrap_or_default(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            });
        }
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(RpcError::Http {
                method: method.to_owned(),
                status,
                body,
            }),
        }
    }

    /// Posts any bytes with the right cookie: status and body of the answer.
    ///
    /// # Errors
    /// [`RpcError::Transport`] when nobody answers.
    pub fn post(&self, method: &str, body: &[u8]) -> Result<(u16, String), RpcError> {
        let transport = |text: String| RpcError::Transport {
            method: method.to_owned(),
            text,
        };
        let cookie = self
            .cookie()
            .map_err(|error| transport(format!("no cookie: {error}")))?;
        let token = base64::engine::general_purpose::STANDARD.encode(cookie);
        let answer = self
            .agent
            .post(&self.url)
            .header("Authorization", format!("Basic {token}"))
            .header("Content-Type", "application/json")
            .send(body);
        let mut answer = answer.map_err(|error| transport(error.to_string()))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        Ok((status, body.map_err(|error| transport(error.to_string()))?))
    }
}
