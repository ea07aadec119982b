# Exim with the router and the transport for remote domains of its default
# configuration, which ask for DNSSEC and use DANE where there is any, and retries
# every few seconds.
set -eu
mkdir "$DIR/spool" "$DIR/log"
chown Debian-exim "$DIR/spool" "$DIR/log"
cat >"$DIR/exim.conf" <<END
primary_hostname = mail.sender.test
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = $DIR/spool
log_file_path = $DIR/log/%slog
pid_file_path = $DIR/spool/pid
keep_environment =
disable_ipv6 = true
tls_advertise_hosts =
acl_smtp_rcpt = accept

begin acl
accept:
  accept hosts = 127.0.0.1

begin routers
dnslookup:
  driver = dnslookup
  transport = remote_smtp
  dnssec_request_domains = *

begin transports
remote_smtp:
  driver = smtp
  dnssec_request_domains = *
  hosts_try_dane = *
  tls_verify_certificates = $CA
  # Quick, so that the lab need not wait.
  connect_timeout = 5s
  command_timeout = 10s

begin retry
* * F,1h,2s
END
chmod 644 "$DIR/exim.conf"
exec exim4 -C "$DIR/exim.conf" -bdf -q3s -oX "127.0.0.1.$LISTEN"
