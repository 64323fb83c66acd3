"""What people play with: `session.EditSession` is the state, `explorer.Explorer` the widget."""
