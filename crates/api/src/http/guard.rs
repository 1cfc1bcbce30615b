//! Which requests a browser may have been tricked into: Host and Origin checks.
//!
//! A page from elsewhere can make a browser send requests to our loopback listener, and can point a name that it
//! owns at 127.0.0.1 (DNS rebinding). The Host header tells the second, the Origin header the first.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

/// The names under which a listener may be addressed.
#[derive(Clone, Debug)]
pub struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// For a listener at `listen`, with the operator's own `names` (without ports).
    pub fn new(listen: SocketAddr, names: &[String]) -> Self {
        let names = names
            .iter()
            .map(|name| name.trim_end_matches('.').to_ascii_lowercase())
            .collect();
        Self {
            listen: listen.ip(),
            names,
        }
    }

    /// Whether the request's Host header names us: a loopback name or address, the address that we listen on, any
    /// address when we listen on all of them (a bare address cannot be rebound), or a configured name.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        host.to_str()
            .ok()
            .and_then(host_of)
            .is_some_and(|host| self.allow_name(&host))
    }

    fn allow_name(&self, host: &str) -> bool {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return ip.is_loopback()
                || ip == self.listen
                || self.listen.is_unspecified()
                || self.names.iter().any(|name| name == host);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host == "localhost" || host.ends_with(".localhost") || self.names.contains(&host)
    }
}

/// The host part of `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_of(authority: &str) -> Option<String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        if rest.is_empty() {
            (host, None)
        } else {
            (host, Some(rest.strip_prefix(':')?))
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    Some(host.to_owned())
}

/// Whether a request comes from our own page: its Origin is this very host over http or https. Requests without an
/// Origin header are not made by a page's script or form in any browser of today, and pass only where
/// `allow_missing` says so.
pub fn same_origin(headers: &HeaderMap, allow_missing: bool) -> bool {
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return allow_missing;
    };
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(header::HOST).map(|host| host.to_str())) else {
        return false;
    };
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn hosts_that_can_be_rebound_are_refused() {
        let hosts = Hosts::new("127.0.0.1:8332".parse().unwrap(), &["node.example.org".to_owned()]);
        for good in [
            "127.0.0.1:8332",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "[::1]:8332",
            "[::1]",
            "node.example.org:8332",
        ] {
            assert!(hosts.allow(&headers(&[("host", good)])), "{good}");
        }
        for bad in [
            "evil.example",
            "evil.example:8332",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            ":80",
            "[::1",
            "[::1]x",
            "localhost:99999",
            "localhost:port",
        ] {
            assert!(!hosts.allow(&headers(&[("host", bad)])), "{bad}");
        }
        assert!(!hosts.allow(&HeaderMap::new()));
        let mut twice = headers(&[("host", "localhost")]);
        twice.append("host", "evil.example".parse().unwrap());
        assert!(!hosts.allow(&twice));
        let everywhere = Hosts::new("0.0.0.0:8332".parse().unwrap(), &[]);
        assert!(everywhere.allow(&headers(&[("host", "10.0.0.1:8332")])));
        assert!(!everywhere.allow(&headers(&[("host", "evil.example")])));
    }

    #[test]
    fn only_our_own_page_is_same_origin() {
        let with = |origin| headers(&[("host", "127.0.0.1:9000"), ("origin", origin)]);
        assert!(same_origin(&with("http://127.0.0.1:9000"), false));
        for bad in [
            "http://evil.example",
            "null",
            "http://127.0.0.1:9001",
            "http://127.0.0.1:9000.evil.example",
        ] {
            assert!(!same_origin(&with(bad), true), "{bad}");
        }
        assert!(same_origin(&headers(&[("host", "localhost")]), true));
        assert!(!same_origin(&headers(&[("host", "localhost")]), false));
        let cross = headers(&[("host", "a"), ("origin", "http://a"), ("sec-fetch-site", "cross-site")]);
        assert!(!same_origin(&cross, true));
    }
}
