//! What an acknowledged part rests on. Killing a process never shows a missing sync, because the kernel keeps what was
//! written; tracing it does.

use std::collections::HashMap;
use std::process::Command;

use crate::server::{Folder, Server, bytes, digest, id, program};

/// One system call that ended well, and when it did.
#[derive(Debug)]
struct Call {
    name: String,
    arguments: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_synced_before_it_is_acknowledged() {
    let folder = Folder::new();
    let trace = folder.path().join("trace");
    let mut command = Command::new("strace");
    // -D: the program is our child, strace its grandchild, so that both end when the program is killed.
    command.args(["-D", "-f", "-y", "-s", "128", "-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg", "-o"]);
    command.arg(&trace).arg(program()).arg("--data-dir").arg(folder.data());
    let server = Server::spawn(command, folder.clone());
    let api = server.writer().await;

    let whole = bytes(1, 300_000);
    let upload = id(&api.begin(&whole).await);
    api.put_part(&upload, 1, whole.clone()).await.ok();
    server.kill();

    let calls = calls(&std::fs::read_to_string(&trace).expect("the trace"));
    let find = |from: usize, what: &str, is: &dyn Fn(&Call) -> bool| {
        let found = calls[from..].iter().position(is);
        from + found.unwrap_or_else(|| panic!("no {what} after call {from} of {calls:#?}"))
    };
    let is_sync = |call: &Call| call.name == "fsync" || call.name == "fdatasync";
    let object =
        find(0, "sync of the object", &|call| is_sync(call) && call.arguments.contains(&format!("{upload}.00001.")));
    // A name lies in the folder above it: the object's in its digest's folder, that one's above, up to the root.
    let hex = digest(&whole).trim_start_matches("sha256:").to_owned();
    let shard = format!("/sha256/{}>", &hex[..2]);
    let folders =
        [format!("/{hex}>"), shard, "/blobs/sha256>".to_owned(), "/blobs>".to_owned(), "/objects>".to_owned()];
    let synced =
        folders.iter().map(|folder| find(object, folder, &|call| is_sync(call) && call.arguments.contains(folder)));
    let last = synced.max().expect("folders");
    let database =
        find(last, "sync of the database", &|call| is_sync(call) && call.arguments.contains("imgsrv.db-wal"));
    // Nothing else in this story is answered with 200.
    let answer = find(0, "answer", &|call| call.arguments.contains("HTTP/1.1 200"));
    assert!(answer > database, "answered at {answer}, durable at {database}: {calls:#?}");
}

/// The calls of a trace in the order in which they ended.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(pid, begun.to_owned());
            continue;
        }
        let call = match call.strip_prefix("<... ") {
            Some(resumed) => {
                let rest = resumed.split_once("resumed>").map_or("", |(_, rest)| rest);
                unfinished.remove(pid).unwrap_or_default() + rest
            }
            None => call.to_owned(),
        };
        if let Some((name, arguments)) = call.split_once('(') {
            calls.push(Call { name: name.to_owned(), arguments: arguments.to_owned() });
        }
    }
    calls
}
