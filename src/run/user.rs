//! The user as whom a command runs, as `/etc/passwd` has it.

/// An account of this machine.
struct Account {
    name: String,
    gid: u32,
    home: String,
    shell: String,
}

/// The account of a uid. `None` if `/etc/passwd` does not have it.
fn account(uid: u32) -> Option<Account> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        // name:password:uid:gid:comment:home:shell
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, of, gid, _, home, shell] = fields.as_slice() else { return None };
        let found =
            || Some(Account { name: (*name).into(), gid: gid.parse().ok()?, home: (*home).into(), shell: (*shell).into() });
        if of.parse() == Ok(uid) { found() } else { None }
    })
}

/// The group that an account begins with. `None` if the account is not known.
pub fn primary_group(uid: u32) -> Option<u32> {
    account(uid).map(|account| account.gid)
}

/// The changes to the environment for a command of another user, as `login` makes them: that user's folder, name and shell, and
/// nothing that leads to ours (T319). `None` removes a variable.
pub fn environment(uid: u32) -> Vec<(&'static str, Option<String>)> {
    let ours = ["XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY", "MAYFLY_HOME", "MAYFLY_CONTEXT"];
    let known = account(uid);
    let of = |field: fn(&Account) -> &String| known.as_ref().map(|account| field(account).clone());
    let home = of(|account| &account.home).unwrap_or_else(|| "/".into());
    let theirs = [
        ("HOME", Some(home)),
        ("USER", of(|account| &account.name)),
        ("LOGNAME", of(|account| &account.name)),
        ("SHELL", of(|account| &account.shell)),
    ];
    theirs.into_iter().chain(ours.map(|name| (name, None))).collect()
}
