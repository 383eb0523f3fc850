//! Who may use which library. Files over 400 lines are told of, not refused.

#![allow(
    clippy::pedantic,
    clippy::style,
    clippy::complexity,
    clippy::unwrap_used,
    reason = "a test is read, not called"
)]

use std::fs;
use std::path::Path;

/// Uses outside the one place that each library has: the file, what it may use, and why.
const SEA_ORM: &[(&str, &str)] = &[
    ("lib.rs", "pub use {opendal, sea_orm};"),
    ("engine.rs", "use sea_orm::DatabaseConnection;"), // what the Builder is given
    ("model/id.rs", "sea_orm::DeriveValueType"),       // values stand in columns
    ("model/text.rs", "sea_orm::DeriveValueType"),
    ("model/text.rs", r#"#[sea_orm(value_type = "String")]"#),
];
const OPENDAL: &[(&str, &str)] = &[
    ("lib.rs", "pub use {opendal, sea_orm};"),
    ("engine.rs", "use opendal::Operator;"), // what the Builder is given
    ("hashing.rs", "use opendal::Buffer;"),  // bytes, not IO
    ("stream.rs", "use opendal::Buffer;"),
];

/// Every source file with its path below `src`.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let name = |path: &Path| path.strip_prefix(&root).expect("below src").to_string_lossy().replace('\\', "/");
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a text"))).collect()
}

fn uses(library: &str, home: &[&str], allowed: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources() {
        if home.iter().any(|home| file.starts_with(home)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let fine = allowed.iter().any(|(at, what)| *at == file && code.contains(what));
            if code.contains(library) && !fine {
                found.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn only_db_makes_queries() {
    assert_eq!(uses("sea_orm", &["db/", "testing/"], SEA_ORM), [""; 0]);
    assert_eq!(uses("sqlx", &["db/", "testing/"], &[]), [""; 0]);
}

#[test]
fn only_the_store_does_io() {
    assert_eq!(uses("opendal", &["store.rs", "store/", "testing/"], OPENDAL), [""; 0]);
    assert_eq!(uses("std::fs", &["store/", "testing/"], &[]), [""; 0]);
    assert_eq!(uses("tokio::fs", &["testing/"], &[]), [""; 0]);
}

#[test]
fn the_database_knows_no_store_and_the_model_neither() {
    for (file, text) in sources() {
        let of_model = file.starts_with("model/");
        for forbidden in ["crate::store", "crate::blobs", "crate::uploads", "crate::engine", "crate::runner"] {
            assert!(!(of_model || file.starts_with("db/")) || !text.contains(forbidden), "{file} uses {forbidden}");
        }
        for forbidden in ["crate::db", "async fn", ".await"] {
            assert!(!of_model || !text.contains(forbidden), "{file} has {forbidden}");
        }
    }
}

#[test]
fn files_are_short() {
    for (file, text) in sources() {
        let lines = text.lines().count();
        if lines > 400 {
            println!("src/{file} has {lines} lines; the aim is 400");
        }
    }
}
