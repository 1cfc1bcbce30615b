//! The dashboard: one page that shows the node live, its JSON snapshot, and `/metrics` in Prometheus text.
//!
//! Everything is embedded in the binary and nothing is fetched from elsewhere. All but the page's own static parts
//! needs the token (see [`Token`]); requests that change something must come from the page itself.

mod actions;
mod feed;
mod metrics;
mod pages;
pub mod status;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use token::Token;

use crate::backend::{Node, Stop};
use crate::http::{self, Hosts};
use crate::stream;
use feed::Feed;

/// State shared by all requests of one dashboard.
pub(crate) struct Site {
    pub(crate) node: Arc<Node>,
    pub(crate) token: Token,
    pub(crate) hosts: Hosts,
    /// Browsers keep one cookie jar for all ports of a host: the port tells the nodes of a flock apart.
    pub(crate) cookie: String,
    pub(crate) feed: Feed,
}

/// The dashboard as an axum router, for [`http::serve`]. `port` is the one that it listens on.
pub fn router(node: Arc<Node>, token: Token, hosts: Hosts, port: u16) -> Router {
    let feed = Feed::start(Arc::clone(&node));
    let site = Arc::new(Site {
        node: Arc::clone(&node),
        token: token.clone(),
        hosts,
        cookie: format!("dunlin-{port}"),
        feed,
    });
    let streams = stream::router(Arc::clone(&node), stream::Key::of(token.as_str()));
    let open = Router::new()
        .route("/style.css", get(pages::style))
        .route("/app.js", get(pages::script))
        .route("/icon.svg", get(pages::icon));
    let guarded = Router::new()
        .route("/", get(pages::index))
        .route("/api/status", get(feed::snapshot))
        .route("/api/events", get(feed::events))
        .route("/metrics", get(metrics::metrics))
        .route("/api/torrents", post(actions::add))
        .route("/api/torrents/{info_hash}/{action}", post(actions::act))
        .layer(axum::extract::DefaultBodyLimit::max(actions::MAX_BODY))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&site), token::require));
    open.merge(guarded)
        .fallback(pages::not_found)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&site), pages::protect))
        .with_state(Arc::clone(&site))
        .merge(streams.layer(axum::middleware::from_fn_with_state(site, pages::allow_host)))
}

/// Serves the dashboard on `listener` until `stop` is pulled. `host_names` are names besides loopback by which it may
/// be addressed.
pub async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    token: Token,
    host_names: &[String],
    stop: Stop,
) -> std::io::Result<()> {
    let addr = listener.local_addr()?;
    let router = router(node, token, Hosts::new(addr, host_names), addr.port());
    http::serve(listener, router, stop).await;
    Ok(())
}
