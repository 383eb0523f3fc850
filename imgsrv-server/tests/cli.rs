//! What the command line says: help, version, and one line for everything that it cannot use.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Output};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

/// The binary in an environment of which it knows nothing.
fn imgsrv(args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imgsrv"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(args)
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// The line that a configuration is refused with.
#[track_caller]
fn refused(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = imgsrv(args, variables);
    assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    let line = text(&output.stderr).strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "more than one line: {line}");
    line.to_owned()
}

#[test]
fn help() {
    insta::assert_snapshot!(text(&imgsrv(&["--help"], &[]).stdout));
}

/// The commands that talk to a server say nothing of how one is configured, and the other way round.
#[test]
fn help_of_a_command_is_about_it() {
    let variables = [("IMGSRV_TOKEN", "imgsrv_at_secret"), ("IMGSRV_SERVER", "https://images.example.org")];
    let push = imgsrv(&["push", "--help"], &variables);
    assert_eq!(imgsrv(&["help", "push"], &variables).stdout, push.stdout);
    let push = text(&push.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(push.contains("--image") && push.contains("[env: IMGSRV_SERVER=https://images.example.org]"), "{push}");
    assert!(!push.contains("--s3-bucket") && !push.contains("secret"), "{push}");
    let serve = imgsrv(&["help", "serve"], &[]);
    assert!(text(&serve.stdout).contains("--s3-bucket"));
    assert!(!text(&serve.stdout).contains("--retry-for"));
}

#[test]
fn the_manual_and_the_completions_know_every_command() {
    let help = imgsrv(&["--help"], &[]);
    let commands = text(&help.stdout).split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let lines = commands.expect("commands").lines().filter_map(|line| line.strip_prefix("  "));
    let commands: Vec<_> = lines.filter_map(|line| line.split(' ').next().filter(|name| !name.is_empty())).collect();
    assert!(commands.contains(&"push") && commands.contains(&"serve"), "{commands:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let manual = folder.path().join("man1");
    let written = imgsrv(&["man", manual.to_str().expect("a path")], &[]);
    assert!(written.status.success(), "{}", text(&written.stderr));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = imgsrv(&["completions", shell], &[]);
        for command in commands.iter().filter(|command| **command != "help") {
            assert!(text(&script.stdout).contains(command), "{shell}: {command}");
            let page = std::fs::read_to_string(manual.join(format!("imgsrv-{command}.1"))).expect(command);
            assert!(page.contains(".TH"), "{page}");
        }
    }
    let script = folder.path().join("script");
    std::fs::write(&script, imgsrv(&["completions", "bash"], &[]).stdout).expect("written");
    assert!(Command::new("bash").arg("-n").arg(&script).status().expect("bash").success());
}

#[test]
fn help_shows_no_secret() {
    let secrets = [("IMGSRV_POSTGRES_URL", "postgres://u:hunter2@h/d"), ("IMGSRV_S3_SECRET_ACCESS_KEY", "hunter2")];
    assert!(!text(&imgsrv(&["--help"], &secrets).stdout).contains("hunter2"));
}

#[test]
fn version() {
    let output = imgsrv(&["--version"], &[]);
    assert_eq!(text(&output.stdout), concat!("imgsrv ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_specification_needs_nothing() {
    let output = imgsrv(&["openapi"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let specification: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(specification["openapi"].as_str().expect("a version").starts_with("3."));
}

#[test]
fn what_cannot_be_used_is_named() {
    let lines: Vec<String> = [
        &["--listen=8080"][..],
        &["--listen=::1:8080"],
        &["--shutdown-timeout=10"],
        &["--log-format=xml"],
        &["--verbosity=inof"],
        &["--upload-ttl=0s"],
        &["--upload-ttl=999999999h"],
        &["--workers=-1"],
        &["--workers=many"],
        &["--transfer-memory=1GB"],
        &["--min-free=half"],
        &["--cas-promotion-enabled=maybe"],
        &["--cas-promotion-error-backoff=2m", "serve"],
        &["--postgres-url=mysql://h/d"],
        &["--postgres-url"],
        &["--postgres-connections=0"],
        &["--postgres-connections=10001"],
        &["--postgres-statement-timeout=600h"],
        &["--postgres-connect-timeout=30"],
        &["--s3-endpoint=http://127.0.0.1:9000"],
        &["--s3-endpoint=h", "--s3-use-tls=maybe"],
        &["--s3-endpoint=h", "--s3-checksum=md5"],
        &["--s3-endpoint=h"],
        &["--s3-endpoint=h", "--s3-bucket=b"],
        &["--s3-endpoint=h", "--s3-bucket=b", "--s3-access-key-id=k"],
        &["--s3-bucket=b"],
        &["check", "--s3-region=r"],
        &["migrate", "--s3-checksum=none"],
        &["worker", "--workers=0"],
        &["worker", "--cas-promotion-enabled=false"],
        &["check", "--blob=sha256:12"],
        &["--tls-cert-file=/dev/null"],
        &["--tls-key-file=/dev/null", "serve"],
        &["healthcheck", "--tls-cert-file=/dev/null"],
        &["healthcheck", "--tls-cert-file=/dev/null", "--tls-key-file=/dev/null"],
        &["--tls-cert-file=/dev/null", "--tls-key-file=/dev/null"],
        &["--tls-cert-file=/nowhere/cert.pem", "--tls-key-file=/nowhere/key.pem"],
        &["--no-such-flag"],
        &["fetch"],
    ]
    .into_iter()
    .map(|args| format!("{}\n    {}", args.join(" "), refused(args, &[])))
    .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_variable_is_as_good_as_a_flag() {
    for (variable, value, flag) in [
        ("IMGSRV_LISTEN", "nowhere", "--listen:"),
        ("IMGSRV_UPLOAD_TTL", "1 day", "--upload-ttl:"),
        ("IMGSRV_LOG_FORMAT", "xml", "--log-format:"),
        ("IMGSRV_S3_ENDPOINT", "s3.example.org", "--s3-bucket: missing, and --s3-endpoint needs it"),
        ("IMGSRV_METRICS_LISTEN", "127.0.0.1:9464", "--metrics-listen:"),
        ("IMGSRV_TLS_CERT_FILE", "cert.pem", "--tls-key-file: missing, and --tls-cert-file needs it"),
        ("IMGSRV_TLS_KEY_FILE", "key.pem", "--tls-cert-file: missing, and --tls-key-file needs it"),
        ("IMGSRV_POSTGRES_CONNECTIONS", "many", "--postgres-connections:"),
        ("IMGSRV_POSTGRES_STATEMENT_TIMEOUT", "30", "--postgres-statement-timeout:"),
        ("IMGSRV_POSTGRES_CONNECT_TIMEOUT", "soon", "--postgres-connect-timeout:"),
    ] {
        let line = refused(&["serve"], &[(variable, value)]);
        assert!(line.starts_with(&format!("error: {flag}")), "{line}");
    }
}

#[test]
fn a_feature_to_come_is_refused() {
    for flag in ["metrics-listen", "metrics-path", "oidc-allow-loopback-http"] {
        for args in [vec![format!("--{flag}=x")], vec!["serve".to_owned(), format!("--{flag}"), "x".to_owned()]] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            assert_eq!(refused(&args, &[]), format!("error: --{flag}: not supported by this version"));
        }
    }
}

#[test]
fn a_key_has_to_belong_to_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key, data) = (file("cert.pem"), file("key.pem"), file("data"));
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&cert, signed.cert.pem()).expect("written");
    let serve = || {
        let variables = [("IMGSRV_TLS_CERT_FILE", &*cert), ("IMGSRV_TLS_KEY_FILE", &*key), ("IMGSRV_DATA_DIR", &*data)];
        refused(&["serve"], &variables)
    };
    for (text, reason) in [
        (
            rcgen::KeyPair::generate().expect("a key").serialize_pem(),
            format!("does not belong to the certificate in {cert}"),
        ),
        (signed.cert.pem(), "holds no private key in PEM that is not encrypted".to_owned()),
    ] {
        std::fs::write(&key, text).expect("written");
        assert_eq!(serve(), format!("error: --tls-key-file: {key}: {reason}"));
    }
    assert!(!std::path::Path::new(&data).exists(), "nothing is made");
}

#[test]
fn an_empty_variable_is_none() {
    let variables = [
        ("IMGSRV_LISTEN", ""),
        ("IMGSRV_POSTGRES_URL", ""),
        ("IMGSRV_WORKERS", ""),
        ("IMGSRV_CAS_PROMOTION_ENABLED", ""),
        ("IMGSRV_METRICS_LISTEN", ""),
        ("IMGSRV_S3_ENDPOINT", ""),
        ("IMGSRV_TLS_CERT_FILE", ""),
    ];
    assert_eq!(imgsrv(&["openapi"], &variables).status.code(), Some(0));
}

#[test]
fn a_refusal_does_not_repeat_a_secret() {
    for url in ["postgres://u:hunter2@h:port/d", "postgres://u:hunter2@h/d?sslmode=hunter2", "pg://u:hunter2@h/d"] {
        for line in [refused(&["--postgres-url", url], &[]), refused(&[], &[("IMGSRV_POSTGRES_URL", url)])] {
            assert!(line.starts_with("error: --postgres-url: "), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
    }
    for args in [
        &["--s3-secret-access-key=hunter2"][..],
        &["--s3-secret-acces-key=hunter2"],
        &["--postgres-urll=postgres://u:hunter2@h/d"],
        &["postgres://u:hunter2@h/d"],
        &["serve", "postgres://u:hunter2@h/d"],
        &["check", "hunter2"],
    ] {
        let line = refused(args, &[]);
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_database_that_does_not_answer_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("none");
    for args in [&["check"][..], &["bootstrap-token"], &["worker"]] {
        let output = imgsrv(args, &[("IMGSRV_DATA_DIR", missing.to_str().expect("UTF-8"))]);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
        assert!(!missing.exists(), "{args:?} made something");
    }
}

#[test]
fn a_postgresql_that_is_not_there_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    // Bound and not listened on: nobody else gets the port, and whoever tries it is refused.
    let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = SocketAddrV4::try_from(getsockname(&held).expect("a name")).expect("an address").port();
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/d?sslmode=disable");
    let there = format!("127.0.0.1:{port}");
    for args in [&["serve"][..], &["worker"], &["migrate"], &["check"], &["bootstrap-token"]] {
        let run = |patience| {
            let data = folder.path().to_str().expect("UTF-8");
            let variables = [
                ("IMGSRV_DATA_DIR", data),
                ("IMGSRV_POSTGRES_URL", &url),
                ("IMGSRV_POSTGRES_CONNECT_TIMEOUT", patience),
            ];
            std::fs::create_dir_all(folder.path().join("objects")).expect("a store");
            let output = imgsrv(args, &variables);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stderr));
            let lines: Vec<String> = text(&output.stderr).lines().map(str::to_owned).collect();
            assert!(lines.iter().all(|line| line.contains(&there) && !line.contains("hunter2")), "{lines:?}");
            lines
        };
        let once = run("0s");
        assert_eq!(once.len(), 1, "{once:?}");
        assert!(once[0].starts_with(&format!("error: PostgreSQL at {there} could not be reached: ")), "{once:?}");
        // The second pause would be half a second: a machine that is busy for less than the rest changes nothing.
        let some = run("700ms");
        let (last, tries) = some.split_last().expect("lines");
        assert!(tries.iter().all(|line| line.contains("waiting for PostgreSQL")), "{tries:?}");
        assert_eq!(tries.len(), 2, "after a quarter of a second, and at the end: {tries:?}");
        assert!(
            last.starts_with(&format!("error: PostgreSQL at {there} could not be reached within 700ms: ")),
            "{last}"
        );
    }
}

#[test]
fn a_folder_or_an_address_that_cannot_be_is_named() {
    for (args, flag) in [
        (&["--data-dir=/dev/null/data"][..], "--data-dir:"),
        (&["--data-dir=/dev/null", "migrate"], "--data-dir:"),
        (&["--listen=nowhere.invalid:80"], "--listen:"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let line = refused(args, &[("IMGSRV_DATA_DIR", folder.path().to_str().expect("UTF-8"))]);
        assert!(line.starts_with(&format!("error: {flag}")), "{line}");
    }
}

#[test]
fn the_way_back_in_needs_the_database_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let run = |args: &[&str]| imgsrv(args, &[("IMGSRV_DATA_DIR", data.to_str().expect("UTF-8"))]);
    for args in [&["migrate"][..], &["check"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    }
    std::fs::remove_dir_all(data.join("objects")).expect("the store");
    assert_eq!(run(&["check"]).status.code(), Some(1));
    let output = run(&["bootstrap-token"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("imgsrv bootstrap token (one-time): imgsrv_at_"));
    assert!(!data.join("objects").exists(), "nothing is made");
}

#[test]
fn what_lies_in_the_folder_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
        .expect("a folder that all may read");
    let output = imgsrv(&["migrate"], &[("IMGSRV_DATA_DIR", folder.path().to_str().expect("UTF-8"))]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for entry in std::fs::read_dir(folder.path()).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is {mode:o}", entry.path());
    }
}

/// The rows of the first table of docs/configuration.md: flag, variable and default.
fn documented() -> Vec<[String; 3]> {
    let page = include_str!("../../docs/configuration.md");
    let rows = page.lines().filter(|line| line.starts_with("| `--"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        [cells[1].clone(), cells[2].clone(), cells[3].clone()]
    })
    .collect()
}

#[test]
fn every_flag_is_documented_with_its_variable_and_its_default() {
    let help = imgsrv(&["--help"], &[("HOSTNAME", "h")]);
    let help = text(&help.stdout);
    let of_flags = help.split("Configuration:").nth(1).expect("the flags");
    // Each begins with its name; what belongs to it follows, wrapped.
    let shown: Vec<[String; 3]> = of_flags
        .split("\n      --")
        .skip(1)
        .map(|flag| {
            let words = flag.split_whitespace().collect::<Vec<_>>().join(" ");
            let within =
                |key: &str| words.split_once(key).and_then(|(_, rest)| rest.split_once(']')).map(|(value, _)| value);
            let name = words.split(' ').next().expect("a name");
            let variable = within("[env: ").expect("a variable").trim_end_matches('=');
            let default =
                within("[default: ").map_or_else(|| "none".to_owned(), |text| text.replace("the host", "host"));
            [format!("--{name}"), variable.to_owned(), default]
        })
        .collect();
    let mut documented = documented();
    let mut shown = shown;
    documented.sort();
    shown.sort();
    assert_eq!(shown, documented);
}
