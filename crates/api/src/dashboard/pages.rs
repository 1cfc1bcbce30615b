//! The page and its parts, all embedded, and the headers that keep it to itself.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};

use super::Site;

/// Nothing from elsewhere, no inline script, no inline style, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Refuses requests for another host's name and sets the headers that every answer carries.
pub(super) async fn protect(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let mut response = if site.hosts.allow(request.headers()) {
        next.run(request).await
    } else {
        wrong_host()
    };
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses requests for another host's name.
pub(super) async fn allow_host(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if site.hosts.allow(request.headers()) {
        next.run(request).await
    } else {
        wrong_host()
    }
}

fn wrong_host() -> Response {
    (StatusCode::FORBIDDEN, "The Host header does not name this server\n").into_response()
}

pub(super) async fn index() -> Html<&'static str> {
    Html(include_str!("assets/index.html"))
}

pub(super) async fn style() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
        include_str!("assets/style.css"),
    )
}

pub(super) async fn script() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")],
        include_str!("assets/app.js"),
    )
}

pub(super) async fn icon() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "image/svg+xml")],
        include_str!("assets/icon.svg"),
    )
}

pub(super) async fn not_found() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, "There is nothing at this address\n")
}

/// The page that asks for the token.
pub(super) fn login(status: StatusCode, wrong: bool) -> Response {
    let page = include_str!("assets/login.html");
    // The remark about a wrong token is hidden until it applies.
    let page = if wrong {
        page.replace(" hidden>", ">")
    } else {
        page.to_owned()
    };
    (status, Html(page)).into_response()
}
