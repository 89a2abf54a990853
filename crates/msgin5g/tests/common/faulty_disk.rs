//! A disk that misbehaves on demand.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Lab;

/// What `faults/faulty_disk.c` does to the files below one folder.
pub struct FaultyDisk {
    library: String,
    folder: PathBuf,
    control: PathBuf,
    record: PathBuf,
}

impl FaultyDisk {
    pub fn under(lab: &Lab, folder: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/faulty_disk.c");
        let library = lab.path("faulty_disk.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC"]).arg(source).arg("-o").arg(&library);
        let status = compiler.status().expect("cc runs");
        assert!(status.success(), "faulty_disk.c does not compile");
        let disk = Self {
            library: library.display().to_string(),
            folder: lab.path(folder),
            control: lab.path("disk-control"),
            record: lab.path("disk-record"),
        };
        disk.does("pass");
        disk
    }

    pub fn environment<'a>(&'a self, others: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let mut environment = vec![
            ("LD_PRELOAD", self.library.as_str()),
            ("FAULTY_DISK_FOLDER", self.folder.to_str().unwrap()),
            ("FAULTY_DISK_CONTROL", self.control.to_str().unwrap()),
            ("FAULTY_DISK_RECORD", self.record.to_str().unwrap()),
        ];
        environment.extend(others);
        environment
    }

    pub fn does(&self, what: &str) {
        std::fs::write(&self.control, what).unwrap();
    }

    fn numbers(&self) -> Vec<u64> {
        let record = std::fs::read(&self.record).unwrap();
        record.chunks_exact(8).map(|octets| u64::from_ne_bytes(octets.try_into().unwrap())).collect()
    }

    pub fn failures(&self) -> u64 {
        self.numbers()[0]
    }

    pub fn octets_lost(&self) -> u64 {
        self.numbers()[1]
    }

    /// Takes away what a program that was killed had written and not synced. Returns how many octets that were.
    pub fn loses_power(&mut self) -> u64 {
        let numbers = self.numbers();
        let synced = |inode| numbers[2..].chunks_exact(2).find(|entry| entry[0] == inode).map(|entry| entry[1]);
        let mut lost = 0;
        for path in files_below(&self.folder) {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let Some(synced) = synced(file.metadata().unwrap().ino()) else { continue };
            let mut octets = vec![0; usize::try_from(file.metadata().unwrap().len().saturating_sub(synced)).unwrap()];
            file.read_exact_at(&mut octets, synced).unwrap();
            lost += octets.iter().filter(|&&octet| octet != 0).count() as u64;
            octets.fill(0);
            file.write_all_at(&octets, synced).unwrap();
        }
        lost
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
