# chasquid as its documentation sets it up: MTA-STS is on by default. It takes mail
# for other domains from its users only, and gives no choice of when it retries
# (after a minute or more): when it is started again, it tries all that waits.
set -eu
if [ "${1:-}" = retry ]; then
	kill "$(cat "$DIR/pid")"
	exit
fi
certs=$DIR/conf/certs/mail.sender.test
mkdir -p "$certs" "$DIR/conf/domains/users.test" "$DIR/data"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=mail.sender.test \
	-addext subjectAltName=DNS:mail.sender.test -keyout "$certs/privkey.pem" -out "$certs/fullchain.pem" 2>/dev/null
cat >"$DIR/conf/chasquid.conf" <<END
hostname: "mail.sender.test"
submission_address: "127.0.0.1:$LISTEN"
smtp_address: "127.0.0.1:2525"
data_dir: "$DIR/data"
mail_log_path: "<stderr>"
END
chasquid-util -C="$DIR/conf" user-add lab@users.test --password=lab
chown -R chasquid "$DIR/conf" "$DIR/data"
trap 'kill "$(cat "$DIR/pid")"; exit' TERM
while :; do
	setpriv --reuid=chasquid --regid=chasquid --clear-groups chasquid -config_dir="$DIR/conf" &
	echo $! >"$DIR/pid"
	wait || :
done
