//! The torrent engine's slow work: disk jobs on one pool, tracker announces on another.

use anyhow::Context;
use dunlin_net::udp::{UdpClient, UdpError};
use dunlin_net::{Completer, Pool, http, udp};
use dunlin_torrent::command::{Done, Job};
use dunlin_torrent::disk::Disk;
use dunlin_torrent::tracker::udp::{Exchange, Step};
use dunlin_torrent::tracker::{self, Request, Response, TrackerError};
use std::net::SocketAddr;
use std::sync::Arc;

/// Threads that hash and write.
const DISK_THREADS: usize = 4;
/// Trackers asked at the same time.
const TRACKER_THREADS: usize = 8;
/// Datagrams sent to a UDP tracker before the next tracker has its turn; BEP 15's full schedule takes over an hour.
const UDP_TRIES: u32 = 2;
/// A name with very many addresses is not tried for ever.
const MAX_ADDRESSES: usize = 2;

/// Sends each job to its pool.
pub(super) fn dispatcher() -> anyhow::Result<impl FnMut(Job, Completer<Done>) + Send> {
    let disk = Arc::new(Disk::default());
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(2, DISK_THREADS);
    let disk_pool = Pool::new("disk", threads).context("cannot start threads")?;
    let trackers = Pool::new("tracker", TRACKER_THREADS).context("cannot start threads")?;
    Ok(move |job, completer: Completer<Done>| match job {
        Job::Disk(job) => {
            let disk = Arc::clone(&disk);
            disk_pool.spawn(move || completer.complete(Done::Disk(disk.run(job))));
        }
        Job::Resolve { names } => trackers.spawn(move || {
            let addrs = names.iter().flat_map(|name| addresses(name)).collect();
            completer.complete(Done::Resolved { addrs });
        }),
        Job::SaveDht { file, saved } => disk_pool.spawn(move || {
            if let Err(error) = saved.save(&file) {
                tracing::warn!(
                    "{} cannot be written: {error}; the next start is slower",
                    file.display()
                );
            }
            completer.complete(Done::DhtSaved);
        }),
        Job::Announce(request) => trackers.spawn(move || {
            let result = announce(&request);
            completer.complete(Done::Announced { request, result });
        }),
    })
}

/// The addresses of a name in the form `host:port`; none when it has none.
fn addresses(name: &str) -> Vec<SocketAddr> {
    let Some((host, port)) = name.rsplit_once(':') else {
        return Vec::new();
    };
    let resolved = port
        .parse()
        .map(|port| udp::resolve(host.trim_matches(['[', ']']), port));
    match resolved {
        Ok(Ok(addrs)) => addrs,
        Ok(Err(error)) => {
            tracing::debug!("{error}");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

fn announce(request: &Request) -> Result<Response, TrackerError> {
    if request
        .url
        .get(..4)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("udp:"))
    {
        announce_udp(request)
    } else {
        announce_http(request)
    }
}

fn announce_http(request: &Request) -> Result<Response, TrackerError> {
    let url = tracker::http::url(&request.url, &request.announce)?;
    match http::get(&url, &http::Limits::default()) {
        Ok(body) => tracker::http::parse(&body),
        // Many trackers say why in the body of an error page.
        Err(http::HttpError::Status { code, body }) => match tracker::http::parse(&body) {
            Err(refused @ TrackerError::Refused(_)) => Err(refused),
            _ => Err(TrackerError::Refused(format!("status {code}"))),
        },
        Err(http::HttpError::Timeout) => Err(TrackerError::Timeout),
        Err(error) => Err(TrackerError::Transport(error.to_string())),
    }
}

fn announce_udp(request: &Request) -> Result<Response, TrackerError> {
    let (host, port, data) = tracker::udp::parse_url(&request.url)?;
    let addrs = udp::resolve(&host, port).map_err(|error| TrackerError::Transport(error.to_string()))?;
    let mut result = Err(TrackerError::Timeout);
    for addr in addrs.into_iter().take(MAX_ADDRESSES) {
        let exchange = Exchange::new(
            request.announce.clone(),
            data.clone(),
            addr.is_ipv6(),
            rand::random(),
            UDP_TRIES,
        );
        result = UdpClient::connect(addr)
            .map_err(|error| TrackerError::Transport(error.to_string()))
            .and_then(|client| drive(exchange, &client));
        if !matches!(result, Err(TrackerError::Timeout | TrackerError::Transport(_))) {
            break;
        }
    }
    result
}

/// Carries out what the exchange asks for until it has an answer or gives up.
fn drive(mut exchange: Exchange, client: &UdpClient) -> Result<Response, TrackerError> {
    let mut pending = None;
    loop {
        let request = match pending.take().unwrap_or_else(|| exchange.poll(super::now())) {
            Step::Send(request) => request,
            // Only reached when a wait ended a moment early by our clock.
            Step::Wait(until) => {
                std::thread::sleep(until.since(super::now()));
                continue;
            }
            Step::GiveUp => return Err(TrackerError::Timeout),
        };
        let Step::Wait(until) = exchange.poll(super::now()) else {
            return Err(TrackerError::Timeout);
        };
        let mut answer = None;
        let fits = |datagram: &[u8]| {
            let now = super::now();
            answer = exchange.receive(now, datagram);
            if answer.is_none()
                && let step @ Step::Send(_) = exchange.poll(now)
            {
                // The answer to `connect`: the announce itself is next.
                pending = Some(step);
            }
            answer.is_some() || pending.is_some()
        };
        match client.exchange(&request, until.since(super::now()), fits) {
            Ok(_) | Err(UdpError::Timeout) => {}
            Err(error) => return Err(TrackerError::Transport(error.to_string())),
        }
        if let Some(answer) = answer {
            return answer;
        }
    }
}
