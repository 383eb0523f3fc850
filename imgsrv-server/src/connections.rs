//! The connections of clients: accepted whatever happens, kept for as long as they move.
//!
//! HTTP/1.1 only. What its reader does not take waits in the socket, where a timeout can see it; in HTTP/2 it waits for
//! a window that says nothing of why.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use poem::http::uri::Scheme;
use poem::http::{HeaderValue, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint, EndpointExt, IntoEndpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lingering::{Lingering, Unread};
use crate::paced::Paced;
use crate::redirect;
use crate::tls::{self, Tls};

/// How long a client may take from the end of one answer to the whole head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// A client that takes not a byte of an answer for so long is gone, and with it the memory that its answer holds.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// How much of a request is received at once, and the most that its head may have: bytes. What is received is copied from
/// there, for which it should still be in the cache of the core.
const READ_AT_ONCE: usize = 256 << 10;

/// Long enough not to burn a core while there are no file descriptors, short enough for nobody to notice otherwise.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client of TLS may take to its first byte, and from there to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves `app` (usually [`app`](crate::app), alone or in routes of one's own) over HTTP/1.1 until `stop` completes;
/// then takes no more connections and lets what is under way finish, for at most `grace`.
///
/// Beside [`poem::Server`] it sends small answers at once (`TCP_NODELAY`), outlives a lack of file descriptors, and ends
/// connections that send no request or take no byte for a minute. A transfer that moves may take as long as it likes.
pub async fn serve<E>(listener: TcpListener, app: E, stop: impl Future<Output = ()>, grace: Duration)
where
    E: IntoEndpoint<Endpoint: 'static>,
{
    serve_all(listener, None, app, stop, grace).await;
}

/// The same as [`serve`] over TLS only. A request in clear text is answered at once with 301 to its place over TLS.
///
/// Certificate and key are followed as their files change. Connections begin with a handshake within half a minute,
/// and end with a `close_notify` unless they are cut off.
pub async fn serve_tls<E>(listener: TcpListener, tls: Tls, app: E, stop: impl Future<Output = ()>, grace: Duration)
where
    E: IntoEndpoint<Endpoint: 'static>,
{
    serve_all(listener, Some(Arc::new(tls)), app, stop, grace).await;
}

async fn serve_all<E>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    app: E,
    stop: impl Future<Output = ()>,
    grace: Duration,
) where
    E: IntoEndpoint<Endpoint: 'static>,
{
    let app = Arc::new(app.into_endpoint().map_to_response());
    let open = TaskTracker::new();
    let (stopping, cut) = (CancellationToken::new(), CancellationToken::new());
    let mut stop = pin!(stop);
    let mut following = pin!(OptionFuture::from(tls.as_deref().map(Tls::follow)));
    loop {
        let (socket, peer) = tokio::select! {
            () = &mut stop => break,
            Some(never) = &mut following => match never {},
            accepted = accept(&listener) => accepted,
        };
        let Ok(local) = socket.local_addr() else { continue };
        let (tls, app, stopping) = (tls.clone(), Arc::clone(&app), stopping.clone());
        let connection = async move {
            match tls {
                Some(tls) => serve_tls_connection(socket, &tls, (local, peer), app, stopping).await,
                None => serve_connection(patient(socket), Scheme::HTTP, (local, peer), app, stopping).await,
            }
        };
        open.spawn(cut.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    stopping.cancel();
    open.close();
    if timeout(grace, open.wait()).await.is_err() {
        tracing::warn!(connections = open.len(), "requests did not finish in time and are cut off");
        cut.cancel();
        open.wait().await;
    }
}

/// Never fails: whoever asked would ask again at once, and again, for as long as it lasts.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Without it a small answer waits for the client's delayed acknowledgement, 40 ms each time. It fails
                // for a connection that is gone already, which the first read will tell.
                let _ = socket.set_nodelay(true);
                return (socket, peer);
            }
            Err(err) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error = %err, "connections cannot be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The two ends of a connection: ours and the client's.
type Ends = (SocketAddr, SocketAddr);

/// The same connection, failing when the client takes nothing of what is sent. It stands below TLS, whose own buffers
/// would say that something was taken.
fn patient<I: AsyncRead + AsyncWrite>(io: I) -> Pin<Box<TimeoutStream<I>>> {
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(WRITE_TIMEOUT));
    Box::pin(io)
}

async fn serve_tls_connection<E>(socket: TcpStream, tls: &Tls, ends: Ends, app: Arc<E>, stopping: CancellationToken)
where
    E: Endpoint<Output = Response> + 'static,
{
    let opening = async { timeout(HANDSHAKE_TIMEOUT, open(socket, tls)).await? };
    // A client that has not begun to ask when the server stops is one for the next server.
    let Some(opened) = stopping.run_until_cancelled(opening).await else { return };
    match opened {
        Ok(Opened::Tls(io)) => serve_connection(io, Scheme::HTTPS, ends, app, stopping).await,
        Ok(Opened::Plain(io)) => {
            serve_connection(io, Scheme::HTTP, ends, Arc::new(redirect::endpoint()), stopping).await;
        }
        Err(err) => tracing::debug!(error = %err, peer = %ends.1, "a connection did not come to a request"),
    }
}

/// A connection at whose other end a client has begun to speak.
enum Opened<I> {
    Tls(Box<TlsStream<I>>),
    Plain(I),
}

async fn open(socket: TcpStream, tls: &Tls) -> io::Result<Opened<Pin<Box<TimeoutStream<TcpStream>>>>> {
    let speaks_tls = tls::is_spoken_on(&socket).await?;
    let io = patient(socket);
    Ok(if speaks_tls { Opened::Tls(Box::new(tls.acceptor().accept(io).await?)) } else { Opened::Plain(io) })
}

async fn serve_connection<I, E>(io: I, scheme: Scheme, ends: Ends, app: Arc<E>, stopping: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    E: Endpoint<Output = Response> + 'static,
{
    let unread = Unread::default();
    let io = Lingering::new(io, unread.clone());
    let (local, remote) = (LocalAddr(Addr::SocketAddr(ends.0)), RemoteAddr(Addr::SocketAddr(ends.1)));
    let service = service_fn(|request: hyper::Request<_>| {
        let (app, unread) = (Arc::clone(&app), unread.clone());
        let mut request = Request::from((request, local.clone(), remote.clone(), scheme.clone()));
        let body = unread.watch(request.take_body());
        request.set_body(body);
        async move {
            let mut response = app.get_response(request).await;
            // No next request can follow on one that was not read. A client that is not told sends it all the same, and
            // has no answer.
            if unread.is_some() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, io::Error>(hyper::Response::from(response).map(Paced::new))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A client that has said all it wants to say still waits for its answer.
        .half_close(true)
        .max_buf_size(READ_AT_ONCE)
        .serve_connection(TokioIo::new(io), service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopping.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(err) = ended {
        tracing::debug!(error = %err, peer = %ends.1, "a connection broke off");
        // A client that asks no more is left without a word, which over TLS looks like an answer cut short.
        if err.is_timeout() {
            connection.into_parts().io.into_inner().shutdown().await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use poem::{Body, handler};
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::sync::mpsc;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::tls::testing::Written;

    const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// The other end of a connection with this app, and the token that stops it.
    fn connect(app: impl IntoEndpoint<Endpoint: 'static>) -> (DuplexStream, CancellationToken) {
        let (client, server) = tokio::io::duplex(4096);
        let stopping = CancellationToken::new();
        let app = Arc::new(app.into_endpoint().map_to_response());
        tokio::spawn(serve_connection(patient(server), Scheme::HTTP, (NOWHERE, NOWHERE), app, stopping.clone()));
        (client, stopping)
    }

    #[handler]
    fn hello() -> &'static str {
        "hello"
    }

    /// An answer without end, and what tells that nobody makes it any more.
    fn endless() -> (impl IntoEndpoint<Endpoint: 'static>, mpsc::Receiver<()>) {
        let (alive, gone) = mpsc::channel(1);
        let app = poem::endpoint::make_sync(move |_| {
            let alive = alive.clone();
            let chunk = move |()| {
                let _held = &alive;
                Ok::<_, io::Error>(vec![0; 1024])
            };
            Body::from_bytes_stream(stream::repeat(()).map(chunk))
        });
        (app, gone)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_whole_head_is_let_go() {
        for head in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let (mut client, _) = connect(hello);
            client.write_all(head.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
            assert_eq!(answer.ends_with("hello"), head.ends_with("\r\n\r\n"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_holds_nothing() {
        let (app, gone) = endless();
        let (client, _stopping) = connect(app);
        is_let_go(client, gone).await;
    }

    /// A client asks for what has no end, and reads its first byte only.
    async fn is_let_go(mut client: impl AsyncRead + AsyncWrite + Unpin, mut gone: mpsc::Receiver<()>) {
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        assert!(client.read_u8().await.is_ok());
        assert_eq!(gone.recv().await, None);
        assert!(begun.elapsed() >= WRITE_TIMEOUT && begun.elapsed() < 2 * WRITE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_served_for_as_long_as_it_takes() {
        let (app, mut gone) = endless();
        let (mut client, _) = connect(app);
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        for _ in 0..100 {
            client.read_exact(&mut [0; 1024]).await.unwrap();
            sleep(WRITE_TIMEOUT / 2).await;
        }
        assert!(gone.try_recv().is_err_and(|err| err == mpsc::error::TryRecvError::Empty));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_an_idle_connection_go_at_once() {
        let (mut client, stopping) = connect(hello);
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        assert!(client.read_u8().await.is_ok());
        let begun = Instant::now();
        stopping.cancel();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(begun.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_reaches_a_client_that_is_still_sending() {
        let app = poem::endpoint::make_sync(|_| poem::http::StatusCode::FORBIDDEN);
        let (mut client, _) = connect(app);
        client.write_all(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        for _ in 0..1000 {
            client.write_all(&[0; 1000]).await.expect("the server reads on");
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }

    #[handler]
    fn echo(body: Vec<u8>) -> Vec<u8> {
        body
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_knows_whether_it_may_ask_on_the_same_connection() {
        let put = |sent: &str| format!("PUT / HTTP/1.1\r\nHost: h\r\n{sent}");
        for (app, request, says_so) in [
            (hello.boxed(), put("\r\n"), false),
            (hello.boxed(), put("Content-Length: 4\r\n\r\nabcd"), false),
            (hello.boxed(), put("Content-Length: 4\r\n\r\n"), true),
            (hello.boxed(), put("Content-Length: 4\r\nExpect: 100-continue\r\n\r\n"), true),
            (hello.boxed(), put("Transfer-Encoding: chunked\r\n\r\n4\r\n"), true),
            (echo.boxed(), put("Content-Length: 4\r\n\r\nabcd"), false),
            (echo.boxed(), put("Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"), false),
        ] {
            let (mut client, _) = connect(app);
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 1000];
            let size = client.read(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer[..size]).into_owned();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(answer.contains("\r\nconnection: close\r\n"), says_so, "{request}");
            // What was said is what happens.
            let goes_on =
                client.write_all(put("\r\n").as_bytes()).await.is_ok() && client.read(&mut [0]).await.unwrap() == 1;
            assert_eq!(goes_on, !says_so, "{request}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_without_end_is_cut_off() {
        let app = poem::endpoint::make_sync(|_| poem::http::StatusCode::FORBIDDEN);
        let (mut client, _) = connect(app);
        client.write_all(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        while client.write_all(&[0]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        assert!((29..33).contains(&begun.elapsed().as_secs()));
    }

    /// The other end of a connection over TLS with this app.
    async fn connect_tls(app: impl IntoEndpoint<Endpoint: 'static>) -> impl AsyncRead + AsyncWrite + Unpin {
        let (client, server) = tokio::io::duplex(4096);
        let pair = Written::new();
        let app = Arc::new(app.into_endpoint().map_to_response());
        let acceptor = pair.load().await.unwrap().acceptor();
        tokio::spawn(async move {
            let io = acceptor.accept(patient(server)).await.unwrap();
            serve_connection(io, Scheme::HTTPS, (NOWHERE, NOWHERE), app, CancellationToken::new()).await;
        });
        pair.connector().connect("localhost".try_into().unwrap(), client).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_tls_that_stops_holds_nothing() {
        let (app, gone) = endless();
        is_let_go(connect_tls(app).await, gone).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_of_tls_that_asks_no_more_is_told_that_this_is_the_end() {
        let mut client = connect_tls(hello).await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        client.read_to_end(&mut Vec::new()).await.expect("an orderly end");
        assert_eq!(begun.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn what_does_not_finish_in_time_is_cut_off() {
        let (app, mut gone) = endless();
        let listener = TcpListener::bind(NOWHERE).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, app, stop.clone().cancelled_owned(), Duration::ZERO));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        assert!(client.read_u8().await.is_ok());
        stop.cancel();
        serving.await.unwrap();
        assert_eq!(gone.recv().await, None);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[handler]
    fn scheme(request: &poem::Request) -> String {
        request.scheme().to_string()
    }

    #[tokio::test]
    async fn an_app_is_told_whether_tls_is_spoken() {
        let pair = Written::new();
        let listener = TcpListener::bind(NOWHERE).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(serve_tls(listener, pair.load().await.unwrap(), scheme, stopped, Duration::MAX));
        let socket = TcpStream::connect(address).await.unwrap();
        let mut client = pair.connector().connect("localhost".try_into().unwrap(), socket).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut answer = vec![client.read_u8().await.unwrap()];
        stop.cancel();
        client.read_to_end(&mut answer).await.expect("an orderly end");
        assert!(answer.ends_with(b"\r\n\r\nhttps"), "{}", String::from_utf8_lossy(&answer));
        serving.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_come_to_a_request_over_tls_is_let_go() {
        let listener = TcpListener::bind(NOWHERE).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Written::new().load().await.unwrap();
        tokio::spawn(serve_tls(listener, tls, hello, std::future::pending(), Duration::ZERO));
        for begun_with in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(begun_with).await.unwrap();
            let begun = Instant::now();
            // It may be a reset: what it sent was never read.
            client.read_to_end(&mut Vec::new()).await.ok();
            assert!(begun.elapsed() >= HANDSHAKE_TIMEOUT && begun.elapsed() < 2 * HANDSHAKE_TIMEOUT);
        }
    }
}
