# OpenSMTPD with the relay action of its example configuration, which uses TLS where
# it is offered. Its queue and socket have fixed places: others are mounted there,
# seen in the lab only. It gives no choice of when it retries: smtpctl tells it to.
set -eu
if [ "${1:-}" = retry ]; then
	exec setpriv --regid=opensmtpq --clear-groups smtpctl schedule all
fi
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/spool
mkdir -m 711 /var/spool/smtpd
if [ ! -d /var/lib/opensmtpd/empty ]; then # it is not installed, but unpacked
	mount -t tmpfs -o mode=755 tmpfs /var/lib
	mkdir -p /var/lib/opensmtpd/empty
fi
cat >"$DIR/smtpd.conf" <<END
listen on 127.0.0.1 port $LISTEN
action "relay" relay helo mail.sender.test
match from any for any action "relay"
END
exec smtpd -d -f "$DIR/smtpd.conf"
