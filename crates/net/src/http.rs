//! Bounded HTTP GET, blocking, for trackers (BEP 3) and `.torrent` files by URL.
//!
//! A page on the public internet must not be able to make us ask our own machine or home network: once a request went
//! to a public address, redirects lead to public addresses only. The check is made on what the name resolves to at
//! the moment of the connection, so a name that changes its mind does not help.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use dunlin_peer::is_public;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

/// What we call ourselves.
const USER_AGENT: &str = concat!("dunlin/", env!("CARGO_PKG_VERSION"));
/// Of an answer that is an error, this much is kept.
const MAX_ERROR_BODY: usize = 4096;

/// Bounds of one request.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest body taken in, in bytes.
    pub max_bytes: usize,
    /// The time for everything together, redirects included.
    pub timeout: Duration,
    /// How many redirects are followed.
    pub max_redirects: u32,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 2 << 20,
            timeout: Duration::from_secs(30),
            max_redirects: 5,
            user_agent: USER_AGENT.to_owned(),
        }
    }
}

/// A request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an http or https URL.
    #[error("not a valid URL: {0}")]
    Url(String),
    /// The server answered with this status; the start of the body may say more.
    #[error("the server answered with status {code}")]
    Status {
        /// The status code.
        code: u16,
        /// Up to 4 KiB of the body.
        body: Vec<u8>,
    },
    /// The body is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// Not done in time.
    #[error("no answer in time")]
    Timeout,
    /// Too many redirects.
    #[error("too many redirects")]
    Redirects,
    /// A public server redirected to an address that is not public.
    #[error("a redirect leads to the private address {0}")]
    PrivateRedirect(SocketAddr),
    /// The name is unknown.
    #[error("host not found")]
    HostNotFound,
    /// The connection could not be made or broke.
    #[error("{0}")]
    Io(io::Error),
    /// TLS or HTTP was violated.
    #[error("{0}")]
    Protocol(String),
}

/// Fetches `url` and gives the body of a 2xx answer.
///
/// # Errors
/// [`HttpError`] tells what went wrong; only [`HttpError::Url`] is the caller's fault.
pub fn get(url: &str, limits: &Limits) -> Result<Vec<u8>, HttpError> {
    let config = Agent::config_builder()
        .timeout_global(Some(limits.timeout))
        .max_redirects(limits.max_redirects)
        .max_redirects_will_error(true)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(limits.user_agent.as_str())
        .build();
    let agent = Agent::with_parts(config, DefaultConnector::default(), Guard::default());
    let mut response = agent.get(url).call().map_err(|error| sort(error, limits))?;
    let code = response.status().as_u16();
    let success = response.status().is_success();
    let limit = if success { limits.max_bytes } else { MAX_ERROR_BODY };
    // One byte more than allowed is enough to know.
    let body = response.body_mut().with_config().limit(limit as u64 + 1).read_to_vec();
    if !success {
        let mut body = body.unwrap_or_default();
        body.truncate(MAX_ERROR_BODY);
        return Err(HttpError::Status { code, body });
    }
    match body {
        Ok(body) if body.len() > limit => Err(HttpError::TooLarge(limit)),
        Ok(body) => Ok(body),
        Err(error) => Err(sort(error, limits)),
    }
}

fn sort(error: Error, limits: &Limits) -> HttpError {
    match error {
        Error::BadUri(text) => HttpError::Url(text),
        Error::Http(error) => HttpError::Url(error.to_string()),
        Error::BodyExceedsLimit(_) => HttpError::TooLarge(limits.max_bytes),
        Error::Timeout(_) => HttpError::Timeout,
        Error::TooManyRedirects | Error::RedirectFailed => HttpError::Redirects,
        Error::HostNotFound => HttpError::HostNotFound,
        Error::Other(error) => match error.downcast::<Private>() {
            Ok(private) => HttpError::PrivateRedirect(private.0),
            Err(error) => HttpError::Protocol(error.to_string()),
        },
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => HttpError::Timeout,
        Error::Io(error) => HttpError::Io(error),
        other => HttpError::Protocol(other.to_string()),
    }
}

/// Resolves names and remembers whether the first one was public: then all that follow must be.
#[derive(Debug, Default)]
struct Guard {
    inner: DefaultResolver,
    began_public: Mutex<Option<bool>>,
}

/// The address that a redirect may not lead to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address")]
struct Private(SocketAddr);

impl Guard {
    /// Keeps what may be connected to.
    fn admit(&self, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, Private> {
        let mut began = self.began_public.lock().unwrap_or_else(PoisonError::into_inner);
        let began_public = *began.get_or_insert_with(|| found.iter().any(|addr| is_public(addr.ip())));
        if !began_public {
            return Ok(found.to_vec());
        }
        let public: Vec<SocketAddr> = found.iter().copied().filter(|addr| is_public(addr.ip())).collect();
        match (public.is_empty(), found.first()) {
            (true, Some(first)) => Err(Private(*first)),
            _ => Ok(public),
        }
    }
}

impl Resolver for Guard {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let admitted = self.admit(&found).map_err(|private| Error::Other(private.into()))?;
        let mut result = self.empty();
        for addr in admitted {
            // No more than came out of the same array.
            result.push(addr);
        }
        Ok(result)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers each request with the next of `answers`; the URL of its root.
    fn server(answers: Vec<Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    request.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let answer = String::from_utf8_lossy(&answer).replace("{request}", text.lines().next().unwrap());
                // The client may have hung up on a body that is too long.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        url
    }

    fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
    }

    fn limits() -> Limits {
        Limits {
            max_bytes: 1000,
            timeout: Duration::from_secs(10),
            ..Limits::default()
        }
    }

    #[test]
    fn the_query_goes_out_as_written() {
        let url = server(vec![answer("200 OK", "", "{request}")]);
        let body = get(&format!("{url}announce?info_hash=%00%ffab%20&port=1"), &limits()).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert_eq!(body, "GET /announce?info_hash=%00%ffab%20&port=1 HTTP/1.1");
    }

    #[test]
    fn bodies_are_bounded_whether_announced_or_not() {
        let long = "x".repeat(1001);
        for headers in ["", "Content-Length: 1001\r\n"] {
            let url = server(vec![answer("200 OK", headers, &long)]);
            assert!(matches!(get(&url, &limits()), Err(HttpError::TooLarge(1000))));
        }
        let url = server(vec![answer("200 OK", "", &long[1..])]);
        assert_eq!(get(&url, &limits()).unwrap().len(), 1000);
    }

    #[test]
    fn errors_are_told_apart() {
        let url = server(vec![answer("404 Not Found", "", "d14:failure reason2:noe")]);
        match get(&url, &limits()) {
            Err(HttpError::Status { code: 404, body }) => assert_eq!(body, b"d14:failure reason2:noe"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(get("not a url", &limits()), Err(HttpError::Url(_))));
        assert!(matches!(get("ftp://127.0.0.1/", &limits()), Err(HttpError::Url(_))));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(
            get(&format!("http://{closed}/"), &limits()),
            Err(HttpError::Io(_))
        ));
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let limits = Limits {
            timeout: Duration::from_millis(200),
            ..limits()
        };
        assert!(matches!(get(&url, &limits), Err(HttpError::Timeout)));
    }

    #[test]
    fn redirects_are_followed_and_counted() {
        let last = server(vec![answer("200 OK", "", "there")]);
        let first = server(vec![answer("302 Found", &format!("Location: {last}\r\n"), "")]);
        assert_eq!(get(&first, &limits()).unwrap(), b"there");
        let round = answer("302 Found", "Location: /again\r\n", "");
        let url = server(vec![round; 10]);
        assert!(matches!(get(&url, &limits()), Err(HttpError::Redirects)));
    }

    #[test]
    fn public_servers_cannot_lead_us_home() {
        let public: SocketAddr = "8.8.8.8:80".parse().unwrap();
        let private: SocketAddr = "192.168.1.1:80".parse().unwrap();
        let guard = Guard::default();
        assert_eq!(guard.admit(&[private, public]).unwrap(), [public]);
        assert_eq!(guard.admit(&[private]).unwrap_err().0, private);
        assert_eq!(guard.admit(&[public]).unwrap(), [public]);
        let at_home = Guard::default();
        assert_eq!(at_home.admit(&[private]).unwrap(), [private]);
        assert_eq!(at_home.admit(&[public]).unwrap(), [public]);

        // The same through the client, with a first step that was public.
        let url = server(vec![answer("200 OK", "", "secret")]);
        let agent = Agent::with_parts(
            Agent::config_builder().proxy(None).build(),
            DefaultConnector::default(),
            guard,
        );
        let error = sort(agent.get(&url).call().unwrap_err(), &limits());
        assert!(matches!(error, HttpError::PrivateRedirect(_)), "{error:?}");
    }
}
