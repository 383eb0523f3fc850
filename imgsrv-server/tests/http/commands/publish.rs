//! From a file to what everybody can download, in one line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use super::{Place, event, names, output, succeeded};
use crate::consumers::site::Site;
use crate::server::{artifact, attachment, digest, id, program};

on_both!(
    Place: four_lines_are_the_tutorial, a_release_is_completed_from_wherever_it_stands, machines_share_a_draft,
    what_a_draft_has_is_replaced,
);

async fn four_lines_are_the_tutorial(place: Place) {
    let disk = place.disk("debian-13-amd64.qcow2", 1, 70 << 20);
    let log = b"built\n";
    fs::write(place.path("build.log"), log).expect("written");
    let mut login = place.command(&format!("login {}/ --new-publisher builder", place.relay.url));
    login.env_remove("IMGSRV_SERVER").env_remove("IMGSRV_TOKEN").stdin(Stdio::piped());
    login.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut login = login.spawn().expect("the program");
    let token = place.server().token.clone().expect("the bootstrap token");
    writeln!(login.stdin.take().expect("standard input"), "{token}").expect("typed");
    succeeded(&login.wait_with_output().expect("its end"));
    let kept = place.path(".config/imgsrv/credentials.json");
    assert_eq!(fs::metadata(&kept).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&kept).expect("text").contains(&token), "only the token of the publisher is kept");

    let logged_in = |line: &str| {
        let mut command = place.command(line);
        command.env_remove("IMGSRV_SERVER").env_remove("IMGSRV_TOKEN");
        succeeded(&output(&mut command))
    };
    let push = "push debian-13-amd64.qcow2 --image demo --version 1.0 --attach build.log=build.log --alias latest";
    assert_eq!(logged_in(push), "", "standard output is for programs");
    let shown = logged_in("show demo");
    for part in [
        "demo:1.0 published",
        ", latest\n",
        "linux/amd64/default",
        "qcow2",
        "70.00 MiB",
        &digest(&disk),
        "build.log",
        &digest(log),
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(logged_in("pull demo"), "demo-1.0-linux-amd64.qcow2\n");
    assert!(fs::read(place.path("demo-1.0-linux-amd64.qcow2")).expect("a file") == disk);
    assert_eq!(logged_in("pull demo:1.0 --attachment build.log --output -").as_bytes(), log);

    let anonymous = place.server().anonymous();
    for (command, path) in [
        ("images", "/v1/images"),
        ("versions demo", "/v1/images/demo/versions"),
        ("alias list demo", "/v1/images/demo/aliases"),
    ] {
        let listed: serde_json::Value = serde_json::from_str(&logged_in(&format!("{command} --json"))).expect("JSON");
        assert_eq!(listed, anonymous.get(path).await.ok(), "{command}");
        assert!(logged_in(command).lines().count() == 2, "{command}: a heading and a row");
    }

    // Nothing is left to do, and nothing is sent.
    let before = place.relay.up.passed();
    let told = place.events(push);
    assert_eq!(names(&told), ["hashed", "hashed", "published", "alias"]);
    assert!(place.relay.up.passed() - before < 10_000);
    // The same bytes under another name neither.
    let told = place.events(&push.replace("1.0", "1.1"));
    assert_eq!(names(&told), ["hashed", "hashed", "known", "known", "added", "publishing", "published", "alias"]);
    assert!(place.relay.up.passed() - before < 20_000);
    assert_eq!(anonymous.get("/v1/images/demo/refs/latest").await.ok()["version"], "1.1");
}

async fn a_release_is_completed_from_wherever_it_stands(place: Place) {
    let disk = place.disk("debian-amd64.qcow2", 2, 1 << 20);
    let meta = b"metadata".to_vec();
    fs::write(place.path("meta"), &meta).expect("written");
    let api = place.writer();
    for step in 0..8 {
        let (image, version) = (format!("image{step}"), format!("/v1/images/image{step}/versions"));
        if step > 0 {
            api.post("/v1/images", json!({ "name": image })).await.created();
        }
        if step > 1 {
            api.post(&version, json!({ "version": "1" })).await.created();
        }
        if step > 2 {
            api.upload(&disk).await;
        }
        let artifacts = format!("{version}/1/artifacts");
        if step > 3 {
            let what = artifact(&disk, json!({"format": "qcow2", "primary_media_type": "application/x-qemu-disk"}));
            let id = api.add(&artifacts, what).await;
            if step > 4 {
                api.upload(&meta).await;
                api.add(
                    &format!("{artifacts}/{id}/attachments"),
                    attachment("incus.tar.xz", "application/x-xz", &meta),
                )
                .await;
            }
        }
        if step == 6 {
            api.act(&format!("{version}/1/publish")).await.accepted();
        }
        if step == 7 {
            api.publish(&image, "1").await;
        }
        let push =
            format!("push debian-amd64.qcow2 --image {image} --version 1 --attach incus.tar.xz=meta --alias latest");
        let told = place.events(&push);
        assert_eq!(names(&told).last(), Some(&"alias"), "{step}: {told:?}");
        let resolved = place.server().anonymous().get(&format!("/v1/images/{image}/refs/latest")).await.ok();
        assert_eq!(resolved["state"], "published", "{step}");
        let manifest = api.get(&format!("{version}/1")).await.ok();
        let entries = manifest["artifacts"].as_array().expect("artifacts");
        assert_eq!((entries.len(), entries[0]["attachments"].as_array().map(Vec::len)), (1, Some(1)), "{step}");
    }
}

/// Each builds for its own architecture; the last one publishes.
async fn machines_share_a_draft(place: Place) {
    for (file, seed) in [("debian-amd64.qcow2", 3), ("debian-arm64.qcow2", 4), ("debian-riscv64.qcow2", 5)] {
        place.disk(file, seed, 100_000);
    }
    let told = place.events("push debian-amd64.qcow2 --image demo --version 1 --draft");
    assert_eq!(names(&told).last(), Some(&"drafted"));
    place.run("push debian-arm64.qcow2 --image demo --version 1 --draft");
    assert!(place.run("show demo:1").starts_with("demo:1 draft"));
    place.run("push debian-riscv64.qcow2 debian-amd64.qcow2 --image demo --version 1");
    let manifest = place.server().anonymous().get("/v1/images/demo/versions/1").await.ok();
    assert_eq!(manifest["artifacts"].as_array().map(Vec::len), Some(3));
    place.refused(5, "push debian-amd64.qcow2 --image demo --version 1 --draft");

    let said = place.refused(2, "pull demo:1");
    assert!(said.contains("linux/arm64/default/qcow2"), "{said}");
    assert_eq!(place.run("pull demo:1 --arch arm64"), "demo-1-linux-arm64.qcow2\n");
    place.refused(4, "pull demo:1 --arch s390x");
}

async fn what_a_draft_has_is_replaced(place: Place) {
    place.disk("debian-amd64.qcow2", 6, 100_000);
    fs::write(place.path("notes"), "first").expect("written");
    let push = "push debian-amd64.qcow2 --image demo --version 1 --attach notes=notes";
    place.run(&format!("{push} --draft"));
    let disk = place.disk("debian-amd64.qcow2", 7, 100_000);
    let before = place.relay.up.passed();
    let said = place.refused(5, push);
    assert!(said.contains("--replace"), "{said}");
    assert!(place.relay.up.passed() - before < 10_000, "it is told before anything is sent");
    place.run(&format!("{push} --replace --draft"));
    fs::write(place.path("notes"), "second").expect("written");
    place.refused(5, push);
    place.run(&format!("{push} --replace"));
    let manifest = place.server().anonymous().get("/v1/images/demo/versions/1").await.ok();
    let entry = &manifest["artifacts"][0];
    assert_eq!(entry["artifact"]["primary_blob_digest"], digest(&disk));
    assert_eq!(entry["attachments"][0]["blob_digest"], digest(b"second"));
    // What is published stays.
    fs::write(place.path("notes"), "third").expect("written");
    place.refused(5, &format!("{push} --replace"));
}

/// The objects of a blob are gone: the publish says so, and a push sends them again and goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_failed_goes_on_or_is_given_up() {
    let place = Place::embedded().await;
    let disk = place.disk("debian-amd64.qcow2", 8, 100_000);
    let push = "push debian-amd64.qcow2 --image demo --version 1";
    place.run(&format!("{push} --draft"));
    let api = place.writer();
    let publish = async |version: &str| {
        place.server().folder.lose(&disk);
        let job = api.act(&format!("/v1/images/demo/versions/{version}/publish")).await.accepted();
        assert_eq!(api.wait_for_job(&id(&job)).await["state"], "failed");
        id(&job)
    };
    let job = publish("1").await;
    let said = place.refused(1, &format!("jobs wait {job}"));
    assert!(said.contains("validate_catalog") && said.contains(&format!("imgsrv jobs retry {job}")), "{said}");
    let shown = place.run(&format!("jobs show {job}"));
    assert!(shown.starts_with("demo:1 failed: "), "{shown}");
    place.refused(1, &format!("jobs retry {job}"));
    let told = place.events(push);
    assert_eq!(event(&told, "uploaded")["sent_bytes"], disk.len() as u64, "it is not known any more");
    assert_eq!(names(&told).last(), Some(&"published"));
    assert_eq!(place.run("pull demo:1"), "demo-1-linux-amd64.qcow2\n");

    place.run("push debian-amd64.qcow2 --image demo --version 2 --draft");
    let job = publish("2").await;
    place.run(&format!("jobs abandon {job}"));
    assert!(place.run("show demo:2").starts_with("demo:2 draft"));
}

/// Over TLS, with an authority that the machine trusts, and with one that it is told of.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_as_the_machine_says_or_as_it_is_told() {
    let site = Site::embedded().await;
    fs::write(site.work().join("amd64.qcow2"), b"QFI\xfb").expect("written");
    let token = site.writer.token.clone().expect("a token");
    let imgsrv = program();
    let imgsrv = imgsrv.to_str().expect("a path");
    let push = ["push", "amd64.qcow2", "--os", "linux", "--image", "demo", "--server", &site.url, "--token", &token];
    site.run(&[&[imgsrv], &push[..], &["--version", "1"]].concat());

    let alone = |more: &[&str]| {
        let mut command = std::process::Command::new(imgsrv);
        command.args(push).args(more).current_dir(site.work()).env_clear().env("HOME", site.work());
        output(&mut command)
    };
    let refused = alone(&["--version", "2", "--retry-for", "60"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    let authority = site.authority();
    succeeded(&alone(&["--version", "2", "--ca-file", authority.to_str().expect("a path")]));
}
