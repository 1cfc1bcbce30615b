//! `/metrics` in the Prometheus text format, version 0.0.4.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Site;
use super::status::{self, PeerCount, Snapshot};

/// One metric: defined here and nowhere else.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// The samples as label text and value; none when the part that it is about is off.
    samples: fn(&Snapshot) -> Vec<(String, f64)>,
}

fn plain(value: Option<f64>) -> Vec<(String, f64)> {
    value.map(|value| (String::new(), value)).into_iter().collect()
}

const METRICS: &[Metric] = &[
    Metric {
        name: "dunlin_info",
        kind: "gauge",
        help: "Always 1; the labels tell the version and the network.",
        samples: |now| {
            vec![(
                format!("{{version=\"{}\",network=\"{}\"}}", now.version, now.network),
                1.0,
            )]
        },
    },
    Metric {
        name: "dunlin_uptime_seconds",
        kind: "gauge",
        help: "Seconds since the start.",
        samples: |now| plain(Some(now.uptime as f64)),
    },
    Metric {
        name: "dunlin_peers",
        kind: "gauge",
        help: "Connected peers by network and direction.",
        samples: |now| {
            let label = |kind: &PeerCount| format!("{{network=\"{}\",direction=\"{}\"}}", kind.network, kind.direction);
            now.peer_counts
                .iter()
                .map(|kind| (label(kind), kind.count as f64))
                .collect()
        },
    },
    Metric {
        name: "dunlin_chain_height",
        kind: "gauge",
        help: "Height of the validated tip.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| f64::from(bitcoin.height))),
    },
    Metric {
        name: "dunlin_chain_headers",
        kind: "gauge",
        help: "Height of the best header.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| f64::from(bitcoin.headers))),
    },
    Metric {
        name: "dunlin_chain_tip_timestamp_seconds",
        kind: "gauge",
        help: "The time that the tip's header tells, in Unix seconds.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| f64::from(bitcoin.tip_time))),
    },
    Metric {
        name: "dunlin_mempool_transactions",
        kind: "gauge",
        help: "Transactions in the memory pool.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| bitcoin.mempool.count as f64)),
    },
    Metric {
        name: "dunlin_mempool_virtual_bytes",
        kind: "gauge",
        help: "Virtual bytes in the memory pool.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| bitcoin.mempool.bytes as f64)),
    },
    Metric {
        name: "dunlin_mempool_usage_bytes",
        kind: "gauge",
        help: "Memory that the memory pool takes.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| bitcoin.mempool.usage as f64)),
    },
    Metric {
        name: "dunlin_bitcoin_received_bytes_total",
        kind: "counter",
        help: "Bytes received from Bitcoin peers since the start.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| bitcoin.bytes_in as f64)),
    },
    Metric {
        name: "dunlin_bitcoin_sent_bytes_total",
        kind: "counter",
        help: "Bytes sent to Bitcoin peers since the start.",
        samples: |now| plain(now.bitcoin.as_ref().map(|bitcoin| bitcoin.bytes_out as f64)),
    },
    Metric {
        name: "dunlin_torrents",
        kind: "gauge",
        help: "Torrents.",
        samples: |now| plain(now.torrent.as_ref().map(|torrent| torrent.count as f64)),
    },
    Metric {
        name: "dunlin_torrent_download_bytes_per_second",
        kind: "gauge",
        help: "Content received from BitTorrent peers per second.",
        samples: |now| plain(now.torrent.as_ref().map(|torrent| torrent.download_rate as f64)),
    },
    Metric {
        name: "dunlin_torrent_upload_bytes_per_second",
        kind: "gauge",
        help: "Content sent to BitTorrent peers per second.",
        samples: |now| plain(now.torrent.as_ref().map(|torrent| torrent.upload_rate as f64)),
    },
];

fn render(now: &Snapshot) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let samples = (metric.samples)(now);
        if samples.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "# HELP {0} {1}\n# TYPE {0} {2}",
            metric.name, metric.help, metric.kind
        );
        for (labels, value) in samples {
            let _ = writeln!(text, "{}{labels} {value}", metric.name);
        }
    }
    text
}

pub(super) async fn metrics(State(site): State<Arc<Site>>) -> impl IntoResponse {
    let text = render(&status::snapshot(&site.node).await);
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
}
