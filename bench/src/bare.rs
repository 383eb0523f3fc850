//! The least that a server has to do with an upload: receive, hash, write, and wait for the disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// How much is received before it is hashed and written: bytes.
const BATCH: usize = 1 << 20;

/// Takes one upload after the other, whatever its path is, and answers with the digest. The files stay, as those of the others
/// do: the memory of one that is deleted would be the next one's.
pub(crate) fn serve(address: SocketAddr, folder: &Path) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let mut number = 0;
    loop {
        number += 1;
        let (connection, _) = listener.accept()?;
        // One that was opened to see whether somebody listens ends at once.
        if let Err(err) = receive(connection, &folder.join(format!("bare-{number}")))
            && err.kind() != io::ErrorKind::UnexpectedEof
        {
            eprintln!("bare: {err}");
        }
    }
}

fn receive(mut connection: TcpStream, path: &Path) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = vec![0; BATCH];
    let (size, length) = loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(size) = request.parse(&head).map_err(io::Error::other)? {
            let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<u64>().ok());
            break (size, length.unwrap_or(0));
        }
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => head.extend_from_slice(&buffer[..more]),
        }
    };
    let (mut file, mut hasher) = (File::create(path)?, Sha256::new());
    let early = &head[size..];
    hasher.update(early);
    file.write_all(early)?;
    let mut left = length - early.len() as u64;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH);
        connection.read_exact(&mut buffer[..most])?;
        hasher.update(&buffer[..most]);
        file.write_all(&buffer[..most])?;
        left -= most as u64;
    }
    file.sync_all()?;
    let digest = hex::encode(hasher.finalize());
    write!(connection, "HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{digest}", digest.len())
}
