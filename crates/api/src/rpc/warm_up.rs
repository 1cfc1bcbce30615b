//! What callers hear while the node is still opening its data: error -28, which tools know to wait for.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request as HttpRequest, Response, StatusCode};
use futures::future::join_all;
use serde_json::Value;
use tokio::net::TcpListener;

use super::error::{IN_WARMUP, RpcError};
use super::protocol;
use super::server::{Gate, MAX_BODY, Options, json_reply, read_body, text};
use crate::backend::Stop;
use crate::http;

/// Answers every call so until `ready` is pulled.
pub async fn warm_up(listeners: Vec<TcpListener>, options: Options, ready: Stop) {
    let serving = listeners.into_iter().filter_map(|listener| {
        let gate = Arc::new(Gate::new(&options, listener.local_addr().ok()?));
        let router = Router::new().fallback(handle).with_state(gate);
        Some(http::serve(listener, router, ready.clone()))
    });
    join_all(serving).await;
}

async fn handle(State(gate): State<Arc<Gate>>, request: HttpRequest<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    if let Err(refused) = gate.check(&head).await {
        return refused;
    }
    let body = match read_body(body, MAX_BODY).await {
        Ok(body) => body,
        Err((status, why)) => return text(status, why),
    };
    let error = || RpcError::new(IN_WARMUP, "Loading block index\u{2026}");
    let reply = |value: Value| protocol::parse(value).0.reply(Err(error()));
    match serde_json::from_slice(&body) {
        Ok(Value::Array(batch)) => {
            let replies: Vec<Value> = batch.into_iter().map(reply).collect();
            json_reply(StatusCode::OK, &replies.into())
        }
        Ok(single) => json_reply(StatusCode::INTERNAL_SERVER_ERROR, &reply(single)),
        Err(_) => json_reply(StatusCode::INTERNAL_SERVER_ERROR, &reply(Value::Null)),
    }
}
