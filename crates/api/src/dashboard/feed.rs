//! Live updates: one snapshot a second for all who watch, as Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::{Semaphore, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::{Site, status};
use crate::backend::Node;

/// The time between snapshots.
const PERIOD: Duration = Duration::from_millis(1000);
/// Watchers served at the same time.
const MAX_WATCHERS: usize = 32;

/// The latest snapshot, taken only while somebody watches.
pub(crate) struct Feed {
    latest: Arc<watch::Sender<Arc<str>>>,
    watchers: Arc<Semaphore>,
}

impl Feed {
    /// Starts taking snapshots of `node`; must be called within a runtime. The task ends with the feed or the node.
    pub(super) fn start(node: Arc<Node>) -> Self {
        let latest = Arc::new(watch::Sender::new(Arc::from("")));
        let weak = Arc::downgrade(&latest);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = node.stop.wait() => return,
                }
                let Some(latest) = weak.upgrade() else { return };
                if latest.receiver_count() > 0
                    && let Ok(text) = serde_json::to_string(&status::snapshot(&node).await)
                {
                    latest.send_replace(text.into());
                }
            }
        });
        Self {
            latest,
            watchers: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }
    }
}

pub(super) async fn snapshot(State(site): State<Arc<Site>>) -> Response {
    Json(status::snapshot(&site.node).await).into_response()
}

pub(super) async fn events(State(site): State<Arc<Site>>) -> Response {
    let Ok(slot) = Arc::clone(&site.feed.watchers).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "Too many are watching\n").into_response();
    };
    let first = serde_json::to_string(&status::snapshot(&site.node).await).unwrap_or_default();
    let later = WatchStream::from_changes(site.feed.latest.subscribe());
    let stop = site.node.stop.clone();
    let stream = tokio_stream::once(Arc::<str>::from(first))
        .chain(later)
        .map(move |text| {
            let _held = &slot;
            Ok::<_, Infallible>(Event::default().data(&*text))
        });
    let stream = futures::StreamExt::take_until(stream, async move { stop.wait().await });
    Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
        .into_response()
}
