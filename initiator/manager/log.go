package manager

import (
	"context"
	"net/http"
)

// A LogLevel says how much iscsid logs.
type LogLevel struct {
	// Level is "error", "warn", "info" or "debug".
	Level string `json:"level"`
}

// LogLevel asks how much the daemon logs.
func (c *Client) LogLevel(ctx context.Context) (*LogLevel, error) {
	var l LogLevel
	if err := c.do(ctx, "log level", http.MethodGet, "/v1/log", nil, &l); err != nil {
		return nil, err
	}
	return &l, nil
}

// SetLogLevel changes how much the daemon logs, until it ends. Code 7 for a level
// that there is not.
func (c *Client) SetLogLevel(ctx context.Context, l LogLevel) error {
	return c.do(ctx, "set log level", http.MethodPut, "/v1/log", l, nil)
}
