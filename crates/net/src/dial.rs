//! Opening a link to an address.

use std::net::SocketAddr;
use std::rc::Rc;

use dunlin_peer::{Codec, DialToken, Direction, Input, Machine};
use tokio::net::TcpStream;

use crate::driver::Driver;

/// Dials within the dial timeout and answers the machine once: `Connected` or `DialFailed`.
pub(crate) async fn run<M, C>(driver: Rc<Driver<M, C>>, addr: SocketAddr, token: DialToken)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    // The semaphore is never closed; without a permit the dial would merely not be limited.
    let _permit = driver.dials.acquire().await;
    let outcome = tokio::time::timeout(driver.config.dial_timeout, TcpStream::connect(addr)).await;
    if driver.is_stopping() {
        return;
    }
    match outcome {
        Ok(Ok(stream)) => return driver.open(stream, addr, Direction::Outbound, Some(token)),
        Ok(Err(error)) => tracing::debug!(%addr, %error, "dial failed"),
        Err(_) => tracing::debug!(%addr, "dial timed out"),
    }
    driver.input(Input::DialFailed { addr, token });
    driver.settle();
}
