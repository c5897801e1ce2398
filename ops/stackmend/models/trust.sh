# The certificates that a model server trusts, as one PEM text. Changes nothing.
# Argument: the server's container, or nothing for a server on the host.
#
# What Go's library reads first: https://pkg.go.dev/crypto/x509#SystemCertPool
# shellcheck disable=SC2016 # the variables of that shell
read_them='for file in "${SSL_CERT_FILE-}" /etc/ssl/certs/ca-certificates.crt \
  /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
  [ -n "$file" ] && [ -r "$file" ] && exec cat "$file"
done
exit 1'
if [ -n "$1" ]; then
  docker exec "$1" sh -c "$read_them"
else
  sh -c "$read_them"
fi
