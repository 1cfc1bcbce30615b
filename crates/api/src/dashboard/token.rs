//! Who may look: a secret in a file, handed to the browser once by address and kept there as a cookie.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rand::RngCore;
use subtle::ConstantTimeEq;

use super::{Site, pages};
use crate::http::same_origin;
use crate::rpc::auth::write_secret;

/// How long a browser keeps the cookie.
const COOKIE_SECS: u32 = 30 * 24 * 60 * 60;

/// The secret that opens the dashboard: 64 hex digits.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Reads the token from `path`, or writes a fresh one there, readable by the owner only.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) if is_token(text.trim()) => return Ok(Self(text.trim().to_owned())),
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
        let mut bytes = [0; 32];
        rand::rng().fill_bytes(&mut bytes);
        let token = hex::encode(bytes);
        write_secret(path, &token)?;
        Ok(Self(token))
    }

    /// The token itself, for the address that is shown to the operator.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

fn is_token(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// How a request proved that it may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// A browser's cookie: it says nothing about who made the browser send the request.
    Cookie,
    /// An `Authorization: Bearer` header, which no browser sends by itself.
    Bearer,
}

fn proof(site: &Site, headers: &HeaderMap) -> Option<Proof> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok()?.strip_prefix("Bearer ")?;
        return site.token.matches(bearer.trim()).then_some(Proof::Bearer);
    }
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .any(|(name, value)| name == site.cookie && site.token.matches(value))
        .then_some(Proof::Cookie)
}

/// Lets a request through when it carries the token. A `token` in the address becomes a cookie.
pub(super) async fn require(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if let Some(given) = token_in_query(request.uri().query()) {
        if !site.token.matches(&given) {
            return pages::login(StatusCode::UNAUTHORIZED, true);
        }
        return remember(&site, request.uri().path());
    }
    let changes = request.method() != axum::http::Method::GET && request.method() != axum::http::Method::HEAD;
    match proof(&site, request.headers()) {
        None if request.uri().path() == "/" => pages::login(StatusCode::UNAUTHORIZED, false),
        None => (
            StatusCode::UNAUTHORIZED,
            "This needs the token from the file api-token in the data directory\n",
        )
            .into_response(),
        Some(Proof::Cookie) if changes && !same_origin(request.headers(), false) => (
            StatusCode::FORBIDDEN,
            "This request does not come from the dashboard itself\n",
        )
            .into_response(),
        Some(_) => next.run(request).await,
    }
}

fn token_in_query(query: Option<&str>) -> Option<String> {
    query?
        .split('&')
        .find_map(|pair| pair.strip_prefix("token="))
        .map(|value| value.trim().to_owned())
}

fn remember(site: &Site, path: &str) -> Response {
    let cookie = format!(
        "{}={}; Path=/; Max-Age={COOKIE_SECS}; HttpOnly; SameSite=Strict",
        site.cookie,
        site.token.as_str()
    );
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    // A path such as `//host` would lead elsewhere.
    let target = if path.starts_with('/') && !path.starts_with("//") {
        path
    } else {
        "/"
    };
    headers.insert(
        header::LOCATION,
        HeaderValue::from_str(target).unwrap_or(HeaderValue::from_static("/")),
    );
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_private_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-token");
        let first = Token::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::load_or_create(&path).unwrap().as_str(), first.as_str());
        fs::write(&path, "cut off").unwrap();
        let second = Token::load_or_create(&path).unwrap();
        assert!(is_token(second.as_str()) && second.as_str() != first.as_str());
        assert!(second.matches(second.as_str()) && !second.matches(first.as_str()) && !second.matches(""));
    }
}
