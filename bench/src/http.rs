//! A client of HTTP/1.1 that takes as little as it can of the processor that it shares with the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How much is read or written at once: bytes.
const STEP: usize = 1 << 20;

/// Longer than anything takes, so that a server that hangs ends the run.
const PATIENCE: Duration = Duration::from_mins(5);

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and belongs to nobody yet.
    read: Vec<u8>,
    buffer: Vec<u8>,
    address: SocketAddr,
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) length: u64,
    pub(crate) location: Option<String>,
}

/// Bytes to send.
pub(crate) struct Body<'a> {
    pub(crate) head: &'a [u8],
    /// What follows, repeated and cut to the size.
    pub(crate) block: &'a [u8],
    pub(crate) size: u64,
}

impl Body<'_> {
    pub(crate) const NONE: Self = Self { head: &[], block: &[], size: 0 };

    pub(crate) fn of(bytes: &[u8]) -> Body<'_> {
        Body { head: bytes, block: &[], size: bytes.len() as u64 }
    }

    /// Gives all of it, in pieces.
    pub(crate) fn pieces(&self, mut give: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        give(self.head)?;
        let mut left = self.size - self.head.len() as u64;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.block.len());
            for step in self.block[..most].chunks(STEP) {
                give(step)?;
            }
            left -= most as u64;
        }
        Ok(())
    }
}

impl Connection {
    pub(crate) fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, read: Vec::new(), buffer: vec![0; STEP], address })
    }

    /// Sends a request; `headers` are whole lines.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &str, body: &Body<'_>) -> io::Result<()> {
        let length = if method == "GET" { String::new() } else { format!("content-length: {}\r\n", body.size) };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n{length}{headers}\r\n", self.address);
        self.stream.write_all(head.as_bytes())?;
        body.pieces(|bytes| self.stream.write_all(bytes))
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut answer = httparse::Response::new(&mut headers);
            let parsed = answer.parse(&self.read).map_err(io::Error::other)?;
            if let httparse::Status::Complete(size) = parsed {
                let text = |name: &str| {
                    let header = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
                    std::str::from_utf8(header.value).ok().map(str::to_owned)
                };
                let head = Head {
                    status: answer.code.unwrap_or(0),
                    length: text("content-length").and_then(|text| text.parse().ok()).unwrap_or(0),
                    location: text("location"),
                };
                self.read.drain(..size);
                return Ok(head);
            }
            let more = self.stream.read(&mut self.buffer)?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read.extend_from_slice(&self.buffer[..more]);
        }
    }

    /// Reads the bytes behind a head and gives them to somebody.
    pub(crate) fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let early = usize::try_from(head.length).unwrap_or(usize::MAX).min(self.read.len());
        take(&self.read[..early]);
        self.read.drain(..early);
        let mut left = head.length - early as u64;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
            let more = self.stream.read(&mut self.buffer[..most])?;
            if more == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&self.buffer[..more]);
            left -= more as u64;
        }
        Ok(())
    }

    /// Sends a request and reads the whole answer, which has to be a good one.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &Body<'_>,
    ) -> io::Result<(Head, Vec<u8>)> {
        self.send(method, path, headers, body)?;
        let head = self.head()?;
        let mut bytes = Vec::new();
        self.body(&head, |more| bytes.extend_from_slice(more))?;
        if !(200..300).contains(&head.status) {
            let said = String::from_utf8_lossy(&bytes);
            return Err(io::Error::other(format!("{method} {path}: {} {said}", head.status)));
        }
        Ok((head, bytes))
    }

    /// Downloads and forgets; how many bytes came.
    pub(crate) fn download(&mut self, path: &str, headers: &str) -> io::Result<u64> {
        self.send("GET", path, headers, &Body::NONE)?;
        let head = self.head()?;
        if !(200..300).contains(&head.status) {
            return Err(io::Error::other(format!("GET {path}: {}", head.status)));
        }
        self.body(&head, |_| {})?;
        Ok(head.length)
    }
}
