//! The JSON-RPC endpoint: one HTTP resource that takes POSTed requests and batches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{Request as HttpRequest, Response, StatusCode, Uri, header};
use bytes::Bytes;
use futures::future::join_all;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::access::Access;
use super::activity::{FilterScan, Slot};
use super::auth::{Auth, Refusal};
use super::block_template::Templates;
use super::error::{INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RpcError};
use super::method::{Answer, Call, Method, Run};
use super::protocol::{self, Envelope, Request};
use super::scan::Scan;
use super::{params, table};
use crate::backend::{Node, Stop};
use crate::http::{self, Hosts, RemoteAddr};
use crate::rest;

/// The longest body read, as in Core: 32 MiB.
pub(super) const MAX_BODY: usize = 32 << 20;
/// Requests read and answered at the same time; more are turned away with 503.
const MAX_REQUESTS: usize = 64;
/// A body must be complete within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What a wrong password costs, against guessing.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(250);

/// State shared by all calls of one server.
pub struct Shared {
    /// The node behind the server.
    pub node: Arc<Node>,
    pub(crate) templates: Templates,
    active: Mutex<Active>,
    scan: Mutex<Option<Arc<Scan>>>,
    pub(crate) filter_scan: Slot<FilterScan>,
}

#[derive(Default)]
struct Active {
    next: u64,
    calls: BTreeMap<u64, (&'static str, Instant)>,
}

impl Shared {
    /// For a server of `node`.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new(Self {
            node,
            templates: Templates::default(),
            active: Mutex::default(),
            scan: Mutex::default(),
            filter_scan: Slot::default(),
        })
    }

    /// The scan of the coins that is under way.
    pub(crate) fn scan(&self) -> Option<Arc<Scan>> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that no scan is under way.
    pub(crate) fn end_scan(&self) {
        *self.scan.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes that a scan begins; `false` when one is under way.
    pub(crate) fn begin_scan(&self, scan: &Arc<Scan>) -> bool {
        let mut at = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        let free = at.is_none();
        if free {
            *at = Some(Arc::clone(scan));
        }
        free
    }

    /// The calls under way with their age.
    pub(crate) fn active(&self) -> Vec<(&'static str, Duration)> {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active
            .calls
            .values()
            .map(|(name, since)| (*name, since.elapsed()))
            .collect()
    }

    fn begin(self: &Arc<Self>, name: &'static str) -> Running {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let number = active.next;
        active.next = number.wrapping_add(1);
        active.calls.insert(number, (name, Instant::now()));
        Running {
            shared: Arc::clone(self),
            number,
        }
    }
}

struct Running {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared
            .active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .calls
            .remove(&self.number);
    }
}

/// Calls a method by name, as a request over HTTP does after its credentials were checked.
pub async fn call(shared: &Arc<Shared>, request: Request) -> Answer {
    let method = table::find(&request.method).ok_or_else(|| RpcError::new(METHOD_NOT_FOUND, "Method not found"))?;
    let args = params::arrange(method, request.params)?;
    let _running = shared.begin(method.name);
    run(
        Call {
            shared: Arc::clone(shared),
            method,
            args,
        },
        method,
    )
    .await
}

async fn run(call: Call, method: &'static Method) -> Answer {
    match method.run {
        Run::Async(start) => start(call).await,
        Run::Blocking(work) => tokio::task::spawn_blocking(move || work(&call))
            .await
            .unwrap_or_else(|err| {
                tracing::error!("{} failed: {err}", method.name);
                Err(RpcError::new(INTERNAL_ERROR, "Internal error"))
            }),
    }
}

/// How a server is served.
#[derive(Clone, Default)]
pub struct Options {
    /// Who may call methods.
    pub auth: Auth,
    /// From where, and which.
    pub access: Access,
    /// Names besides loopback by which clients may address the server.
    pub host_names: Vec<String>,
    /// Whether to serve Core's REST interface, too, which asks for no login.
    pub rest: bool,
}

/// What a request must pass before it is read.
pub(super) struct Gate {
    auth: Auth,
    access: Access,
    hosts: Hosts,
}

impl Gate {
    pub(super) fn new(options: &Options, listen: SocketAddr) -> Self {
        Self {
            auth: options.auth.clone(),
            access: options.access.clone(),
            hosts: Hosts::new(listen, &options.host_names),
        }
    }

    /// The answer to a request that may not come at all.
    fn refuse(&self, request: &Parts) -> Option<Response<Body>> {
        let remote = request.extensions.get::<RemoteAddr>();
        if !remote.is_some_and(|remote| self.access.admits(remote.0.ip())) {
            return Some(text(StatusCode::FORBIDDEN, ""));
        }
        // Who lets other machines in has chosen how they call this one.
        if !self.access.is_open() && !self.hosts.allow(&request.headers) {
            let why = "The Host header does not name this server\n";
            return Some(text(StatusCode::FORBIDDEN, why));
        }
        None
    }

    /// The user whose call a request is.
    pub(super) async fn check(&self, request: &Parts) -> Result<String, Response<Body>> {
        if let Some(refused) = self.refuse(request) {
            return Err(refused);
        }
        if request.uri.path() != "/" {
            return Err(text(StatusCode::NOT_FOUND, ""));
        }
        if request.method != axum::http::Method::POST {
            return Err(text(
                StatusCode::METHOD_NOT_ALLOWED,
                "JSONRPC server handles only POST requests",
            ));
        }
        let refusal = match self.auth.check(&request.headers) {
            Ok(user) => return Ok(user),
            Err(refusal) => refusal,
        };
        if refusal == Refusal::WrongLogin {
            let from = request
                .extensions
                .get::<RemoteAddr>()
                .map(|remote| remote.0.to_string());
            tracing::warn!(
                "wrong RPC password from {}",
                from.as_deref().unwrap_or("an unknown address")
            );
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
        }
        let mut response = text(StatusCode::UNAUTHORIZED, "");
        let realm = header::HeaderValue::from_static("Basic realm=\"jsonrpc\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        Err(response)
    }
}

struct Server {
    shared: Arc<Shared>,
    gate: Gate,
    rest: bool,
    slots: Semaphore,
}

/// The endpoint as an axum router, for [`http::serve`] at the address `listen`.
pub fn router(shared: Arc<Shared>, options: &Options, listen: SocketAddr) -> Router {
    let server = Server {
        shared,
        gate: Gate::new(options, listen),
        rest: options.rest,
        slots: Semaphore::new(MAX_REQUESTS),
    };
    Router::new().fallback(handle).with_state(Arc::new(server))
}

/// Serves JSON-RPC on the listeners until `stop` is pulled.
pub async fn serve(listeners: Vec<TcpListener>, node: Arc<Node>, options: Options, stop: Stop) -> std::io::Result<()> {
    let shared = Shared::new(node);
    let mut serving = Vec::new();
    for listener in listeners {
        let router = router(Arc::clone(&shared), &options, listener.local_addr()?);
        serving.push(http::serve(listener, router, stop.clone()));
    }
    join_all(serving).await;
    Ok(())
}

async fn handle(State(server): State<Arc<Server>>, request: HttpRequest<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if server.rest && head.uri.path().starts_with("/rest/") {
        return match server.gate.refuse(&head) {
            None => serve_rest(&server, &head.uri, body).await,
            Some(refused) => refused,
        };
    }
    let user = match server.gate.check(&head).await {
        Ok(user) => user,
        Err(refused) => return refused,
    };
    let Ok(_slot) = server.slots.try_acquire() else {
        return overloaded();
    };
    let body = match read_body(body, MAX_BODY).await {
        Ok(body) => body,
        Err((status, why)) => return text(status, why),
    };
    let body = serde_json::from_slice::<Value>(&body);
    if let Ok(body) = &body
        && !server.gate.access.allows(&user, body)
    {
        tracing::warn!("the RPC user {user} is not allowed to call that");
        return text(StatusCode::FORBIDDEN, "");
    }
    let (status, reply) = answer(&server.shared, body).await;
    match reply {
        Some(reply) => json_reply(status, &reply),
        None => text(status, ""),
    }
}

pub(super) fn json_reply(status: StatusCode, reply: &Value) -> Response<Body> {
    let mut response = text(status, &format!("{reply}\n"));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn serve_rest(server: &Server, uri: &Uri, body: Body) -> Response<Body> {
    let Ok(_slot) = server.slots.try_acquire() else {
        return overloaded();
    };
    let body = match read_body(body, rest::MAX_BODY).await {
        Ok(body) => body,
        Err((status, why)) => return text(status, why),
    };
    let reply = rest::answer(&server.shared, uri.path(), uri.query().unwrap_or_default(), body).await;
    reply.unwrap_or_else(|| text(StatusCode::NOT_FOUND, ""))
}

fn overloaded() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded")
}

pub(super) async fn read_body(body: Body, max: usize) -> Result<Bytes, (StatusCode, &'static str)> {
    let body = axum::body::to_bytes(body, max);
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((StatusCode::PAYLOAD_TOO_LARGE, "The body is too long or was cut off\n")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time\n")),
    }
}

pub(super) fn text(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response
}

/// The status and the reply to a body.
async fn answer(shared: &Arc<Shared>, body: serde_json::Result<Value>) -> (StatusCode, Option<Value>) {
    let error = |code, text| {
        let error = RpcError::new(code, text);
        (legacy_status(&error), Some(Envelope::default().reply(Err(error))))
    };
    match body {
        Ok(Value::Array(batch)) => {
            let was_empty = batch.is_empty();
            let mut replies = Vec::with_capacity(batch.len());
            for value in batch {
                let (envelope, request) = protocol::parse(value);
                let answer = match request {
                    Ok(request) => call(shared, request).await,
                    Err(error) => Err(error),
                };
                if !envelope.is_notification() {
                    replies.push(envelope.reply(answer));
                }
            }
            if replies.is_empty() && !was_empty {
                return (StatusCode::NO_CONTENT, None);
            }
            (StatusCode::OK, Some(Value::Array(replies)))
        }
        Ok(value @ Value::Object(_)) => single(shared, value).await,
        Ok(_) => error(PARSE_ERROR, "Top-level object parse error"),
        Err(_) => error(PARSE_ERROR, "Parse error"),
    }
}

async fn single(shared: &Arc<Shared>, value: Value) -> (StatusCode, Option<Value>) {
    let (envelope, request) = protocol::parse(value);
    let request = match request {
        Ok(request) => request,
        Err(error) => return (legacy_status(&error), Some(envelope.reply(Err(error)))),
    };
    let answer = call(shared, request).await;
    if envelope.is_notification() {
        return (StatusCode::NO_CONTENT, None);
    }
    let status = match &answer {
        Err(error) if envelope.version == protocol::Version::Legacy => legacy_status(error),
        _ => StatusCode::OK,
    };
    (status, Some(envelope.reply(answer)))
}

/// The HTTP status by which clients of the old protocol see an error.
fn legacy_status(error: &RpcError) -> StatusCode {
    match error.code {
        INVALID_REQUEST => StatusCode::BAD_REQUEST,
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
