//! Datagrams of a machine: a UDP socket at each address that is listened on.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{Codec, Input, Machine};
use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, spawn_local, yield_now};

use crate::driver::Driver;

/// The longest payload that UDP can carry over IPv4.
const MAX_DATAGRAM: usize = 65_507;
/// Datagrams taken in before the links have their turn.
const BATCH: usize = 64;
/// What the kernel is asked to keep for us while we are busy with something else.
const KERNEL_BUFFER: usize = 1 << 20;

/// Receives on each socket until the task is aborted.
pub(crate) fn receive_all<M, C>(driver: &Rc<Driver<M, C>>, sockets: Vec<StdSocket>) -> Vec<JoinHandle<()>>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut tasks = Vec::new();
    for socket in sockets {
        // Without the larger buffer a burst loses datagrams, which the protocols above survive.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BUFFER);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, KERNEL_BUFFER);
        match UdpSocket::from_std(socket) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                driver.sockets.borrow_mut().push(Rc::clone(&socket));
                tasks.push(spawn_local(receive(Rc::clone(driver), socket)));
            }
            Err(error) => tracing::error!(%error, "cannot watch a socket for datagrams"),
        }
    }
    tasks
}

async fn receive<M, C>(driver: Rc<Driver<M, C>>, socket: Rc<UdpSocket>)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut room = vec![0; MAX_DATAGRAM];
    loop {
        if let Err(error) = socket.readable().await {
            tracing::error!(%error, "datagrams are not received any more");
            return;
        }
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut room) {
                Ok((length, from)) => {
                    // Exactly as long as the payload: what a machine keeps of it holds no more than that.
                    let bytes = BytesMut::from(&room[..length]).freeze();
                    driver.input(Input::Datagram { from, bytes });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An earlier datagram of ours was refused at its target; that says nothing of this socket.
                Err(_) => {}
            }
        }
        driver.settle();
        yield_now().await;
    }
}

/// Sends from the first socket of the target's family. When that is full the datagram is lost, as on its way.
pub(crate) fn send(sockets: &[Rc<UdpSocket>], to: SocketAddr, bytes: &Bytes) {
    let fits = |socket: &&Rc<UdpSocket>| socket.local_addr().is_ok_and(|local| local.is_ipv4() == to.is_ipv4());
    let Some(socket) = sockets.iter().find(fits) else {
        return;
    };
    // Straight to the system: the runtime would refuse until it has heard from the socket once. The first error may
    // belong to an earlier datagram that was refused at its target, so one is forgiven.
    let sent = (0..2).find_map(|_| rustix::net::sendto(&**socket, bytes, SendFlags::empty(), &to).ok());
    if sent.is_none() {
        tracing::trace!(%to, "a datagram was not sent");
    }
}
